-- put: store a row that a client has loaded itself.
--
-- KEYS  1 row:<key>, 2 meta            dirty:<g> share their hash tag
-- ARGV  1 prefix  2 key  3 lease, '' for none  4 value, from the epoch on  5 ms to live
-- gives 'K' stored, 'D' the log has a newer row, 'W' the key is being written, 'V' the lease does not stand any more
redis.call('EXISTS', ARGV[1] .. 'here:1', ARGV[1] .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', KEYS[2], 'gen', 'glo', 'wm', 'cache')
for g = tonumber(m[1] or '1'), tonumber(m[2] or '1'), -1 do
  local id = redis.call('HGET', ARGV[1] .. 'dirty:' .. g, ARGV[2])
  if id and tonumber(string.match(id, '^%d+%-(%d+)')) > tonumber(m[3] or '0') then return 'D' end
  if id then redis.call('HDEL', ARGV[1] .. 'dirty:' .. g, ARGV[2]) end -- or it would be served first
end
local now = redis.call('GET', KEYS[1])
if now and string.sub(now, 1, 1) == 'W' then return 'W' end
if ARGV[3] ~= '' and now ~= 'L' .. ARGV[3] then return 'V' end
redis.call('SET', KEYS[1], 'C' .. (m[4] or '') .. ARGV[4], 'PX', ARGV[5])
return 'K'
