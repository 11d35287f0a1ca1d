-- open: give a partition its epoch, or leave it as it is when Redis is not
-- behind Postgres.
--
-- KEYS  1 log, 2 meta
-- ARGV  1 prefix  2 epoch  3 seq of the watermark in Postgres  4 highest epoch ever opened
--       5 strategy of the table, for a new epoch
-- gives {epoch, seq, '1' when a new epoch was opened}
--
-- The caller holds the partition's watermark row in Postgres locked, so that
-- the watermark cannot move meanwhile. The new epoch and seq are above both
-- the watermark and the last frame of the log: no frame is ever skipped, none is
-- read twice, and no receipt is given out twice.
local m = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'gen', 'glo')
local we, ws = tonumber(ARGV[2]), tonumber(ARGV[3])
local int = function(n) return string.format('%.0f', n) end
if m[1] then
  local e, s = tonumber(m[1]), tonumber(m[2])
  if e > we or (e == we and s >= ws) then return {m[1], m[2], '0'} end
  we = math.max(we, e)
end
we = math.max(we, tonumber(ARGV[4]))
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
  local e, s = string.match(last[1], '^(%d+)%-(%d+)$')
  we, ws = math.max(we, tonumber(e)), math.max(ws, tonumber(s))
end
for g = tonumber(m[4] or '1'), tonumber(m[3] or '1') do
  redis.call('UNLINK', ARGV[1] .. 'dirty:' .. g)
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'epoch', int(we + 1), 'seq', int(ws), 'wm', ARGV[3],
  'bytes', '0', 'wmbytes', '0', 'gen', '1', 'glo', '1', 'gn', '0', 'strategy', ARGV[5])
return {int(we + 1), int(ws), '1'}
