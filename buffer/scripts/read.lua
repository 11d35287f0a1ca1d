-- read: the newest row of a key.
--
-- KEYS  1 log, 2 meta, 3 row:<key>      dirty:<g> share their hash tag
-- ARGV  1 prefix  2 key  3 lease token, '' for none  4 lease, ms
-- gives {'D', id, watermark seq, c, t, head, line}   from the log: dirty, or committed and not trimmed yet
--       {'C', value, ms to live}                     a clean row
--       {'L'}  a miss, and the caller holds the lease to load it
--       {'W'}  a miss, and somebody else holds it
--       {'M'}  a miss, and no lease was asked for
--
-- An index entry whose frame was trimmed was committed long ago: a miss. A
-- clean row of an older epoch may be older than Postgres: a miss.
local m = redis.call('HMGET', KEYS[2], 'gen', 'glo', 'wm', 'epoch')
local gen, glo = tonumber(m[1] or '1'), tonumber(m[2] or '1')
for g = gen, glo, -1 do
  local id = redis.call('HGET', ARGV[1] .. 'dirty:' .. g, ARGV[2])
  if id then
    id = string.match(id, '^[%d%-]+') -- without the mark of a delete
    local entry = redis.call('XRANGE', KEYS[1], id, '+', 'COUNT', 1)[1]
    if entry then
      local f = {}
      for i = 1, #entry[2], 2 do f[entry[2][i]] = entry[2][i + 1] end
      local e, seq = string.match(id, '^(%d+)%-(%d+)$')
      local le, last = string.match(entry[1], '^(%d+)%-(%d+)$')
      local i = #f.h / 8 - (tonumber(last) - tonumber(seq)) -- row of the frame, from 1
      if e == le and i >= 1 then
        local from = 0
        if i > 1 then from = struct.unpack('<I4', f.h, (i - 2) * 8 + 5) end
        local to = struct.unpack('<I4', f.h, (i - 1) * 8 + 5)
        return {'D', id, m[3] or '0', f.c, f.t,
          string.sub(f.h, (i - 1) * 8 + 1, i * 8), string.sub(f.d, from + 1, to)}
      end
    end
    break
  end
end

local clean = redis.call('GET', KEYS[3])
if clean and string.sub(clean, 1, 1) == 'C' then
  local epoch, at = string.match(clean, '^C(%d*)\n()')
  if epoch == (m[4] or '') then
    return {'C', string.sub(clean, at), redis.call('PTTL', KEYS[3])}
  end
  clean = false
end
if ARGV[3] == '' then return {'M'} end
if clean then return {'W'} end
redis.call('SET', KEYS[3], 'L' .. ARGV[3], 'PX', ARGV[4])
return {'L'}
