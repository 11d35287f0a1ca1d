-- open: compare a partition with its watermark in Postgres, and open a new epoch
-- when this is another run of Redis than the one in which it was opened last, or
-- when one of the two has gone back.
--
-- KEYS  1 log, 2 meta, 3 commits          dirty:<g>, joined, returned, moved and torn share their hash tag
-- ARGV  1 prefix  2 epoch  3 seq of the watermark in Postgres  4 highest epoch ever opened
--       5 strategy of the table, for a new epoch  6 the epoch in which frames were found missing from the log, or '0'
-- gives {epoch, seq, why, kept, run of Redis}
--       why   '' as it was, or why there is a new epoch: first, restart, behind, emptied, rewind
--       kept  id up to which nothing is lost: Postgres has it, or the log
-- or {epoch, seq, 'gap', first seq of the log, run}  Postgres went back further than the log is kept: nothing was done
--
-- The caller holds the partition's watermark row in Postgres locked, so that
-- the watermark cannot move meanwhile. The new epoch and seq are above both
-- the watermark and the last frame of the log: no frame is ever skipped, none is
-- read twice, and no receipt is given out twice.
--
-- A new epoch is closed: neither written nor read nor flushed, until every process
-- that may hold rows which Redis has lost has given them back. Only the first epoch
-- of a partition has nothing to wait for.
local log, meta, commits = KEYS[1], KEYS[2], KEYS[3]
local prefix = ARGV[1]
local int = function(n) return string.format('%.0f', n) end
local after = function(e, s, e2, s2) return e > e2 or (e == e2 and s > s2) end
local split = function(id)
  local e, s = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(e), tonumber(s)
end
-- bytes of the log up to the last frame at or before an id
local upto = function(e, s)
  local entry = redis.call('XREVRANGE', log, int(e) .. '-' .. int(s), '-', 'COUNT', 1)[1]
  for i = 1, entry and #entry[2] or 0, 2 do
    if entry[2][i] == 'b' then return entry[2][i + 1] end
  end
  return '0'
end
redis.call('EXISTS', prefix .. 'here:1', prefix .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local info = redis.pcall('INFO', 'server') -- denied by an ACL: every run looks the same
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''

local m = redis.call('HMGET', meta, 'epoch', 'seq', 'gen', 'glo', 'run', 'wm', 'closed', 'kept', 'ig', 'in', 'it', 'strategy')
local we, ws, opened = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local e, s, wm = tonumber(m[1] or '0'), tonumber(m[2] or '0'), tonumber(m[6] or '0')
local torn = ARGV[6] == m[1] and not m[7] -- or somebody was quicker
local le, ls = 0, 0
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if last then le, ls = split(last[1]) end

local why = ''
if not m[1] then
  why = (opened > 0 or last) and 'emptied' or 'first'
elseif opened > e or after(we, ws, e, s) then
  why = 'behind'
elseif ws < wm then
  why = 'rewind'
  local next = redis.call('XRANGE', log, '(' .. int(we) .. '-' .. int(ws), '+', 'COUNT', 1)[1]
  local first = s + 1
  if next then
    local _, to = split(next[1])
    for i = 1, #next[2], 2 do
      if next[2][i] == 'h' then first = to - #next[2][i + 1] / 8 + 1 end
      if next[2][i] == 'l' then first = to - tonumber(next[2][i + 1]) + 1 end
    end
  end
  if first > ws + 1 then return {m[1], m[2], 'gap', int(first), run} end
elseif torn or s > ws and ls < s then
  why = 'emptied'
elseif m[5] ~= run then
  why = 'restart'
end
if why == '' then return {m[1], m[2], '', m[8] or '', run} end
-- What was lost before an epoch that is still closed is lost in this one too.
if why == 'restart' and (m[7] == 'behind' or m[7] == 'emptied') then why = m[7] end

local epoch = math.max(e, we, opened, le) + 1
if why ~= 'first' then redis.call('PUBLISH', 'hp:opened', string.match(prefix, '{(.*)}')) end
redis.call('DEL', prefix .. 'joined', prefix .. 'returned', prefix .. 'moved', prefix .. 'torn')

if (why == 'restart' or why == 'rewind') and not m[7] then
  -- Nothing is missing here: the log, the index and the marks stay.
  local kept = m[1] .. '-' .. m[2]
  redis.call('HSET', meta, 'epoch', int(epoch), 'run', run, 'closed', why, 'kept', kept)
  if why == 'rewind' then -- readers must not be given what Postgres has no more
    redis.call('HSET', meta, 'wm', int(ws), 'wmbytes', upto(we, ws), 'cache', int(epoch), 'reindex', '1')
    redis.call('DEL', commits)
  end
  return {int(epoch), m[2], why, kept, run}
end

-- Rows are missing, or an epoch was closed and what was put back into it is not
-- known to anybody: it is taken out again, and all begins anew.
local ke, ks = we, ws
if m[7] then
  local e2, s2 = split(m[8])
  if after(e2, s2, ke, ks) then ke, ks = e2, s2 end
elseif last and not torn and after(le, ls, ke, ks) then
  ke, ks = le, ls
end
if torn then
  if last then redis.call('RENAME', log, prefix .. 'torn') end
else
  while true do
    local extra = redis.call('XRANGE', log, '(' .. int(ke) .. '-' .. int(ks), '+', 'COUNT', 100)
    if #extra == 0 then break end
    for _, entry in ipairs(extra) do redis.call('XDEL', log, entry[1]) end
  end
end
for g = tonumber(m[4] or '1'), tonumber(m[3] or '1') do
  redis.call('UNLINK', prefix .. 'dirty:' .. int(g))
end
-- Nothing but what was put back came after the epoch was closed: so where nothing had
-- been lost the producers' last calls are known, and a repeat is one.
local producers, n = {}, 0
if why == 'restart' or why == 'rewind' then
  local all = redis.call('HGETALL', meta)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'p:' then
      producers[n + 1], producers[n + 2] = all[i], all[i + 1]
      n = n + 2
    end
  end
end
redis.call('DEL', meta, commits)
for i = 1, n, 1000 do redis.call('HSET', meta, unpack(producers, i, math.min(i + 999, n))) end
redis.call('HSET', meta, 'epoch', int(epoch), 'seq', int(ks), 'wm', ARGV[3], 'run', run, 'cache', int(epoch),
  'bytes', upto(ke, ks), 'wmbytes', upto(we, ws), 'gen', '1', 'glo', '1', 'gn', '0', 'strategy', m[12] or ARGV[5])
if m[9] then redis.call('HSET', meta, 'ig', m[9], 'in', m[10], 'it', m[11]) end
local kept = int(ke) .. '-' .. int(ks)
if why ~= 'first' then redis.call('HSET', meta, 'closed', why, 'kept', kept, 'reindex', '1') end
return {int(epoch), int(ks), why, kept, run}
