-- read: the newest rows of some keys of one partition, each key once.
--
-- KEYS  1 log, 2 meta           dirty:<g>, row:<key> and refresh:<key> share their hash tag
-- ARGV  1 prefix  2 now, ms  3 lease, ms  4 how long a clean row is good after its end, ms
--       5 a clean row is to be loaded again so long before its end, ms
--       6 n: that there is no row may be remembered
--         t: the lease is taken from whoever holds it
--       then for each key: key, lease token ('' for none)
-- gives for each key, one after the other:
--       'D', id, watermark seq, c, t, head, line   from the log: dirty, or committed and not trimmed yet
--       'C', value, '1' or ''     a clean row; 1: the caller is to load it again
--       'N', value                it is remembered that there is no row
--       'L', epoch                a miss, and the caller holds the lease to load it
--       'H'                       a miss, and somebody else holds it
--       'W'                       a direct writer is about to commit: Postgres knows, and nobody may fill
--       'M'                       a miss, and no lease was asked for
--       and at the end '1' when the index is empty, else ''
--       or only 'U'               the partition has no epoch, or a closed one: handshake first
--       or only 'T', epoch        rows that are not committed are missing from the log: open it anew
--
-- The index comes first: while it knows the key, what lies under row:<key> may
-- be older. An entry whose frame was trimmed was committed long ago: a miss; but one
-- above the watermark cannot be trimmed. A
-- clean row from before Redis or Postgres went back may be older than Postgres: a miss.
local log, meta, prefix = KEYS[1], KEYS[2], ARGV[1]
local now, stale, ahead = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
local n = (#ARGV - 6) / 2
redis.call('EXISTS', prefix .. 'here:1', prefix .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', meta, 'gen', 'glo', 'wm', 'cache', 'gn', 'epoch', 'closed')
if not m[6] or m[7] then return {'U'} end
local gen, glo = tonumber(m[1] or '1'), tonumber(m[2] or '1')
local epoch = m[4] or ''
local out, o, torn = {}, 0, false

-- dirty puts the row with this id, and reports whether its frame is there.
local function dirty(id)
  id = string.match(id, '^[%d%-]+') -- without the mark of a delete
  local e, seq = string.match(id, '^(%d+)%-(%d+)$')
  local entry = redis.call('XRANGE', log, id, '+', 'COUNT', 1)[1]
  local f, le, i = {h = ''}, nil, 0
  if entry then
    for n = 1, #entry[2], 2 do f[entry[2][n]] = entry[2][n + 1] end
    local last
    le, last = string.match(entry[1], '^(%d+)%-(%d+)$')
    i = #f.h / 8 - (tonumber(last) - tonumber(seq)) -- row of the frame, from 1
  end
  if e ~= le or i < 1 then
    torn = torn or tonumber(seq) > tonumber(m[3] or '0')
    return false
  end
  local from = 0
  if i > 1 then from = struct.unpack('<I4', f.h, (i - 2) * 8 + 5) end
  local to = struct.unpack('<I4', f.h, (i - 1) * 8 + 5)
  out[o + 1], out[o + 2], out[o + 3], out[o + 4], out[o + 5] = 'D', id, m[3] or '0', f.c, f.t
  out[o + 6], out[o + 7] = string.sub(f.h, (i - 1) * 8 + 1, i * 8), string.sub(f.d, from + 1, to)
  o = o + 7
  return true
end

local ids = {}
local empty = gen == glo and m[5] == '0'
for g = gen, glo, -1 do
  if not empty then
    local want, at = {}, {}
    for i = 1, n do
      if not ids[i] then want[#want + 1], at[#at + 1] = ARGV[5 + 2 * i], i end
    end
    if #want > 0 then
      local got = redis.call('HMGET', prefix .. 'dirty:' .. g, unpack(want))
      for j = 1, #want do ids[at[j]] = got[j] or nil end
    end
  end
end

local names = {}
for i = 1, n do names[i] = prefix .. 'row:' .. ARGV[5 + 2 * i] end
local values = redis.call('MGET', unpack(names))

for i = 1, n do
  local v, token = values[i], ARGV[6 + 2 * i]
  if not (ids[i] and dirty(ids[i])) then
    local kind = v and string.sub(v, 1, 1)
    local done = false
    if kind == 'C' or kind == 'N' and string.find(ARGV[6], 'n', 1, true) then
      local e, ends = string.match(v, '^.(%d*) %d+ (%d+) ')
      local left = e == epoch and tonumber(ends) - now
      if left and kind == 'N' and left > 0 then
        out[o + 1], out[o + 2] = 'N', v
        o, done = o + 2, true
      elseif left and kind == 'C' and left > -stale then
        local again = ''
        if token ~= '' and left <= ahead and
          redis.call('SET', prefix .. 'refresh:' .. ARGV[5 + 2 * i], token, 'NX', 'PX', ARGV[3]) then
          again = '1'
        end
        out[o + 1], out[o + 2], out[o + 3] = 'C', v, again
        o, done = o + 3, true
      end
    end
    if done then
    elseif kind == 'W' then
      out[o + 1] = 'W'
      o = o + 1
    elseif token == '' then
      out[o + 1] = 'M'
      o = o + 1
    elseif kind == 'L' and not string.find(ARGV[6], 't', 1, true) then
      out[o + 1] = 'H'
      o = o + 1
    else
      redis.call('SET', names[i], 'L' .. token .. '.' .. epoch, 'PX', ARGV[3])
      out[o + 1], out[o + 2] = 'L', epoch
      o = o + 2
    end
  end
end
if torn then return {'T', m[6]} end
out[o + 1] = empty and '1' or ''
return out
