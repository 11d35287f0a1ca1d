-- settle: Postgres has committed everything up to the watermark.
--
-- KEYS  1 log, 2 meta, 3 commits          dirty:<g> share their hash tag
-- ARGV  1 prefix  2 epoch  3 seq of the watermark  4 bytes of the log up to it, '' if not known
--       5 now, ms  6 picked up, ms  7 copied, ms  8 retain, ms  9 retain, bytes
--         retain -1: the commit may be lost with its server, so the log is held until
--         a later commit is sure
--       10 forget producers that were silent for so many ms
--       11 dead letters in this commit, then for each: key, id
-- gives {epoch, seq, watermark seq, bytes in the backlog}
--
-- It must preserve: the watermark never goes back; a generation goes only when
-- its last row is committed; the log keeps every frame above the watermark.
-- Repeating a call changes nothing.
local log, meta, commits = KEYS[1], KEYS[2], KEYS[3]
local prefix = ARGV[1]
local int = function(n) return string.format('%.0f', n) end
redis.call('EXISTS', prefix .. 'here:1', prefix .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', meta, 'epoch', 'seq', 'wm', 'bytes', 'wmbytes', 'gen', 'glo', 'gn')
local epoch = m[1]
if not epoch then return {'', '0', '0', '0'} end
local seq, wm = tonumber(m[2]), tonumber(m[3] or '0')
local bytes, wmbytes = tonumber(m[4] or '0'), tonumber(m[5] or '0')
local gen, glo, gn = tonumber(m[6] or '1'), tonumber(m[7] or '1'), tonumber(m[8] or '0')
local to = math.min(tonumber(ARGV[3]), seq)

-- The rows of dead letters are not in Postgres: readers must not be given them.
for i = 12, #ARGV, 2 do
  for g = gen, glo, -1 do
    local id = redis.call('HGET', prefix .. 'dirty:' .. g, ARGV[i])
    if id and string.match(id, '^[%d%-]+') == ARGV[i + 1] then
      redis.call('HDEL', prefix .. 'dirty:' .. g, ARGV[i])
    end
  end
end

if to > wm then
  local from = int(wm + 1)
  wm = to
  if ARGV[4] ~= '' then wmbytes = math.max(wmbytes, tonumber(ARGV[4])) end
  if wm == seq then wmbytes = bytes end
  -- A new epoch starts at the old watermark, so this id is above all before it.
  redis.pcall('XADD', commits, ARGV[2] .. '-' .. int(wm),
    't', ARGV[5], 'p', ARGV[6], 'c', ARGV[7], 'b', int(wmbytes), 'f', from)
  redis.call('HSET', meta, 'wm', int(wm), 'wmbytes', int(wmbytes))
  if ARGV[8] == '-1' then redis.call('HSET', meta, 'hold', '1') else redis.call('HDEL', meta, 'hold') end
  redis.call('PUBLISH', 'hp:settled', string.match(prefix, '{(.*)}') .. ' ' .. int(wm) .. ' ' .. ARGV[11])
end

while glo < gen do
  local last = redis.call('HGET', meta, 'ge:' .. int(glo))
  if last and tonumber(last) > wm then break end
  redis.call('UNLINK', prefix .. 'dirty:' .. int(glo))
  redis.call('HDEL', meta, 'ge:' .. int(glo))
  glo = glo + 1
end
if glo == gen and wm >= seq and gn > 0 then
  redis.call('UNLINK', prefix .. 'dirty:' .. int(gen))
  gn = 0
end
redis.call('HSET', meta, 'glo', int(glo), 'gn', int(gn))

-- Trim what was committed long enough ago, or is too much to keep.
local cut
local held = ARGV[8] == '-1' or redis.call('HEXISTS', meta, 'hold') == 1
for _, entry in ipairs(held and {} or redis.call('XRANGE', commits, '-', '+', 'COUNT', 100)) do
  local t, b = tonumber(entry[2][2]), tonumber(entry[2][8])
  if tonumber(ARGV[5]) - t < tonumber(ARGV[8]) and wmbytes - b <= tonumber(ARGV[9]) then break end
  cut = entry[1]
end
if cut then
  local e, s = string.match(cut, '^(%d+)%-(%d+)$')
  local min = e .. '-' .. int(tonumber(s) + 1)
  redis.call('XTRIM', log, 'MINID', min)
  redis.call('XTRIM', commits, 'MINID', min)
end

-- Forget producers that went away.
if ARGV[10] ~= '' then
  local all = redis.call('HGETALL', meta)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'p:' then
      local s, t = string.match(all[i + 1], '^%d+ %d+ (%d+) (%d+)$')
      if t and tonumber(s) <= wm and tonumber(ARGV[5]) - tonumber(t) > tonumber(ARGV[10]) then
        redis.call('HDEL', meta, all[i])
      end
    end
  end
end
return {epoch, int(seq), int(wm), int(bytes - wmbytes)}
