-- append: rows of one partition, all or nothing.
--
-- KEYS  1 log, 2 meta           dirty:<g>, row:<key>, returned and moved share their hash tag
-- ARGV  1 prefix  2 producer  3 number of the call  4 now, ms (only to forget old producers)
--       5 most rows in the backlog  6 most bytes in the backlog
--       7 1: keep the index, 0: log only  8 number of frames  9 number of marks
--       10 '', or the name of a unit that was accepted before and lost by Redis: it is put back,
--          whatever it expects, into a closed epoch
--       then for each frame: rows, c, t, h, d
--       then, when there are marks: how many a partition keeps, and for how many ms;
--       and for each mark: row (from 0), name, value
--       then, with the index: a letter for each row, a key for each row, and
--       what a letter refers to for each row whose letter needs it
--         g  Headpond made the key: nobody can know it yet, nothing to check or to drop
--         u  no expectation
--         a  the key must be absent from the buffer
--         i  the newest row of the key must be this one: its id
--         l  no write since the lease was given out: its token
--         c  no write since the clean row was read: its SHA-1, without its head
--       capital letters are those of deletes
-- gives {'K', epoch, first seq, '1' when it was a repeat}
--       {'R', i, mark, …}       rows (from 0) whose mark is there already: done before
--       {'F', i, …}             rows (from 0) whose expectation failed
--       {'B', rows, bytes}      the backlog is full
--       {'X', strategy}         the table is written directly now
--       {'S'}                   the call is older than one already applied, or the unit is back: nothing done
--       {'U'}                   the partition has no epoch, or a closed one: handshake first
--       {'T', epoch}            the log is gone with rows that are not committed: open it anew
--
-- Nothing is written before everything was checked, because Lua is isolated
-- but not rolled back. XADD is the first write: the one that Redis refuses
-- whole when it is out of memory, read-only or cannot persist. No arithmetic is
-- done on users' values. Seqs stay below 10^14, up to which Lua's own conversion
-- prints every digit; string.format would cost a third of the time of a row.
local log, meta = KEYS[1], KEYS[2]
local prefix, producer, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local indexed = ARGV[7] == '1'
local nframes = tonumber(ARGV[8])
local int = function(n) return string.format('%.0f', n) end -- for bytes, which may be more

redis.call('EXISTS', prefix .. 'here:1', prefix .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', meta, 'epoch', 'seq', 'wm', 'bytes', 'wmbytes', 'gen', 'glo', 'gn', 'p:' .. producer, 'strategy', 'closed')
local epoch, back = m[1], ARGV[10] ~= ''
if not epoch or m[11] and not back then return {'U'} end
if back and not (m[11] and redis.call('HEXISTS', prefix .. 'returned', ARGV[10]) == 1) then return {'S'} end
local seq, wm = tonumber(m[2]), tonumber(m[3] or '0')
local bytes, wmbytes = tonumber(m[4] or '0'), tonumber(m[5] or '0')
local gen, glo, gn = tonumber(m[6] or '1'), tonumber(m[7] or '1'), tonumber(m[8] or '0')

if seq > wm and not back and redis.call('EXISTS', log) == 0 then return {'T', epoch} end

if m[9] and not back then
  local last, e, first = string.match(m[9], '^(%d+) (%d+) (%d+)')
  if tonumber(last) == number then return {'K', e, first, '1'} end
  if tonumber(last) > number then return {'S'} end
end
if m[10] and m[10] ~= '' and m[10] ~= 'write-behind' and not back then return {'X', m[10]} end

local rows, size, arg = 0, 0, 11
for _ = 1, nframes do
  rows = rows + tonumber(ARGV[arg])
  size = size + #ARGV[arg + 3] + #ARGV[arg + 4]
  arg = arg + 5
end
local nmarks, firstmark = tonumber(ARGV[9]), arg + 2
if nmarks > 0 then arg = firstmark + 3 * nmarks end
local flags, firstkey = ARGV[arg], arg + 1

-- A mark says that a request was done. Marks carry no TTL, so no eviction can
-- take them; they are kept in two generations, and the older goes as a whole.
local im
if nmarks > 0 then
  im = redis.call('HMGET', meta, 'ig', 'in', 'it')
  local g = tonumber(im[1] or '1')
  local answer = {'R'}
  for i = 0, nmarks - 1 do
    local name = ARGV[firstmark + 3 * i + 1]
    local done = redis.call('HGET', prefix .. 'marks:' .. g, name) or redis.call('HGET', prefix .. 'marks:' .. (g - 1), name)
    if done then
      answer[#answer + 1] = tonumber(ARGV[firstmark + 3 * i])
      answer[#answer + 1] = done
    end
  end
  if #answer > 1 and not back then return answer end
end

-- newest gives the index's word on the keys: key -> id, with a d behind it when
-- it is a delete. The newest generation that knows a key is right.
local function newest(keys)
  local found = {}
  for g = gen, glo, -1 do
    local want = {}
    for _, key in ipairs(keys) do
      if not found[key] then want[#want + 1] = key end
    end
    for from = 1, #want, 1000 do
      local to = math.min(from + 999, #want)
      local got = redis.call('HMGET', prefix .. 'dirty:' .. g, unpack(want, from, to))
      for j = 1, to - from + 1 do found[want[from + j - 1]] = got[j] or nil end
    end
  end
  return found
end

if indexed and string.find(flags, '[ailcILC]') then
  local look, extra = {}, firstkey + rows
  for i = 1, rows do
    if string.find('aiI', string.sub(flags, i, i), 1, true) then look[#look + 1] = ARGV[firstkey + i - 1] end
  end
  local now = newest(look)
  local touched = {} -- by an earlier row of this call
  local answer = {'F'}
  for i = 1, rows do
    local letter, key = string.sub(flags, i, i), ARGV[firstkey + i - 1]
    local lower, ok = string.lower(letter), true
    if lower == 'a' then
      local id = now[key]
      ok = not id or string.sub(id, -1) == 'd'
    elseif lower ~= 'u' and lower ~= 'g' then
      local basis = ARGV[extra]
      extra = extra + 1
      if touched[key] then
        ok = false
      elseif lower == 'i' then
        ok = now[key] ~= nil and string.match(now[key], '^[%d%-]+') == basis
      else
        local clean = redis.call('GET', prefix .. 'row:' .. key)
        if lower == 'l' then
          ok = clean == 'L' .. basis
        else
          local at = clean and string.match(clean, '^C[^\n]*\n()')
          ok = at ~= nil and at ~= false and redis.sha1hex(string.sub(clean, at)) == basis
        end
      end
    end
    if ok then
      touched[key] = true
      now[key] = letter == lower and 'here' or 'd'
    else
      answer[#answer + 1] = i - 1
    end
  end
  if #answer > 1 then return answer end
end

if not back and (seq - wm + rows > tonumber(ARGV[5]) or bytes - wmbytes + size > tonumber(ARGV[6])) then
  return {'B', int(seq - wm), int(bytes - wmbytes)}
end

local first = (seq + 1) .. ''
local last = seq
local clock = redis.call('TIME')
local now = clock[1] .. string.sub('00000' .. clock[2], -6)
arg = 11
for _ = 1, nframes do
  last = last + tonumber(ARGV[arg])
  bytes = bytes + #ARGV[arg + 3] + #ARGV[arg + 4]
  redis.call('XADD', log, epoch .. '-' .. last,
    'c', ARGV[arg + 1], 't', ARGV[arg + 2], 'h', ARGV[arg + 3], 'd', ARGV[arg + 4], 'b', int(bytes), 'r', now)
  arg = arg + 5
end

local update = {'seq', last, 'bytes', int(bytes)}
if back then
  redis.call('HDEL', prefix .. 'returned', ARGV[10])
  redis.call('HSET', prefix .. 'moved', ARGV[10], epoch .. '-' .. last)
else
  update[5], update[6] = 'p:' .. producer, ARGV[3] .. ' ' .. epoch .. ' ' .. first .. ' ' .. ARGV[4]
end

if nmarks > 0 then
  local g, n, since = tonumber(im[1] or '1'), tonumber(im[2] or '0'), tonumber(im[3] or ARGV[4])
  if n >= tonumber(ARGV[firstmark - 2]) or tonumber(ARGV[4]) - since >= tonumber(ARGV[firstmark - 1]) then
    redis.call('UNLINK', prefix .. 'marks:' .. (g - 1))
    g, n, since = g + 1, 0, tonumber(ARGV[4])
  end
  for i = 0, nmarks - 1 do
    local at = firstmark + 3 * i
    redis.call('HSET', prefix .. 'marks:' .. g, ARGV[at + 1],
      epoch .. '-' .. (seq + 1 + tonumber(ARGV[at])) .. ' ' .. ARGV[at + 2])
  end
  local u = #update
  update[u + 1], update[u + 2], update[u + 3] = 'ig', g, 'in'
  update[u + 4], update[u + 5], update[u + 6] = n + nmarks, 'it', int(since)
end

if indexed then
  local dirty = prefix .. 'dirty:' .. gen
  local id, deletes = epoch .. '-', string.find(flags, '%u')
  for from = 1, rows, 1000 do
    local pairs, n = {}, 0
    for i = from, math.min(from + 999, rows) do
      pairs[n + 1] = ARGV[firstkey + i - 1]
      pairs[n + 2] = id .. (seq + i)
      if deletes and string.byte(flags, i) < 97 then pairs[n + 2] = pairs[n + 2] .. 'd' end
      n = n + 2
    end
    redis.call('HSET', dirty, unpack(pairs))
  end
  if string.find(flags, '[^g]') then
    for from = 1, rows, 1000 do
      local drop, n = {}, 0
      for i = from, math.min(from + 999, rows) do
        if string.byte(flags, i) ~= 103 then -- g
          n = n + 1
          drop[n] = prefix .. 'row:' .. ARGV[firstkey + i - 1]
        end
      end
      if n > 0 then redis.call('UNLINK', unpack(drop)) end
    end
  end
  gn = gn + rows
  -- A generation closes at 8,192 rows, or at half the backlog when that is
  -- more: so a backlog of any size has few generations to look through.
  if gn >= math.max(8192, (last - wm) / 2) then
    local n = #update
    update[n + 1], update[n + 2] = 'ge:' .. gen, last
    gen, gn = gen + 1, 0
    update[n + 3], update[n + 4] = 'gen', gen
  end
  local n = #update
  update[n + 1], update[n + 2] = 'gn', gn
end

redis.call('HSET', meta, unpack(update))
-- Only the first write after a settled state wakes the flusher: while there is
-- a backlog it looks again by itself.
if seq <= wm then redis.call('PUBLISH', 'hp:wake', string.match(prefix, '{(.*)}')) end
return {'K', epoch, first, '0'}
