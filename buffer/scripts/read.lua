-- read: the newest row of a key.
--
-- KEYS  1 log, 2 meta, 3 row:<key>      dirty:<g> share their hash tag
-- ARGV  1 prefix  2 key  3 lease token, '' for none  4 lease, ms
--       5 what is wanted: r a row, to be shown; b a basis for the next row: what
--         is known to be missing, and what is past its time, is a miss then;
--         f what is in the log, else a lease whatever lies here
--       6 r: a clean row that has less than so many ms left is to be loaded again, '' never
-- gives {'D', id, watermark seq, c, t, head, line}   from the log: dirty, or committed and not trimmed yet
--       {'C', value, ms left, ms to live, '1' when the caller is to load it again under its token}
--       {'N', ms left}  it is known that there is no row
--       {'L'}  a miss, and the caller holds the lease to load it
--       {'W'}  a miss, and somebody else holds it
--       {'H'}  a miss, and a direct writer has a marker there: load it, and do not store it
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

-- The head of a clean row: C or N, epoch, ms to live, ms to be served beyond
-- that while it is loaded again, and the token of whoever loads it.
local row = redis.call('GET', KEYS[3])
if row and ARGV[5] ~= 'f' then
  local kind, epoch, ttl, stale, token, at = string.match(row, '^([CN])(%d*) (%d+) (%d+) ?([^\n]*)\n()')
  if kind and epoch == (m[4] or '') then
    local pttl = redis.call('PTTL', KEYS[3])
    local left = pttl - tonumber(stale)
    if ARGV[5] == 'r' or kind == 'C' and left > 0 then
      if kind == 'N' then return {'N', left} end
      local again = '0'
      if token == '' and ARGV[3] ~= '' and ARGV[5] == 'r' and (left <= 0 or ARGV[6] ~= '' and left < tonumber(ARGV[6])) then
        redis.call('SET', KEYS[3], 'C' .. epoch .. ' ' .. ttl .. ' ' .. stale .. ' ' .. ARGV[3] .. string.sub(row, at - 1), 'PX', pttl)
        again = '1'
      end
      return {'C', string.sub(row, at), left, ttl, again}
    end
  end
end
local kind = row and string.sub(row, 1, 1)
if kind == 'W' then return {'H'} end
if ARGV[3] == '' then return {'M'} end
if kind == 'L' and ARGV[5] ~= 'f' then return {'W'} end
redis.call('SET', KEYS[3], 'L' .. ARGV[3], 'PX', ARGV[4])
return {'L'}
