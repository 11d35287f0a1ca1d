-- outdate: somebody else changed rows in Postgres: let go of what is known of them.
--
-- KEYS  1 meta           dirty:<g> and row:<key> share its hash tag
-- ARGV  1 prefix  2 seq of the watermark in Postgres, as it was after the change  then the keys
-- gives how many keys were let go of, then for each key with an operation above the watermark: its place among the keys (from 0), id
--
-- A committed entry of the index goes, or the log would go on serving a row that
-- is older than the one in Postgres. What is committed is asked of Postgres too:
-- Redis hears of a commit later. An entry above the watermark stays, and the key
-- is to be given here again when it is committed.
--
-- The marker of a direct writer stays too, or a reader could store a row from
-- before its commit; but it is changed, so that the writer does not put its row,
-- which may be the older one, in its place. It ends by itself.
local prefix = ARGV[1]
redis.call('EXISTS', prefix .. 'here:1', prefix .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', KEYS[1], 'gen', 'glo', 'wm')
local gen, glo = tonumber(m[1] or '1'), tonumber(m[2] or '1')
local wm = math.max(tonumber(m[3] or '0'), tonumber(ARGV[2]))
local kept, newest, gone = {0}, {}, {}
for g = gen, glo, -1 do
  local dirty = prefix .. 'dirty:' .. g
  local ids = redis.call('HMGET', dirty, unpack(ARGV, 3))
  local drop = {}
  for i, id in ipairs(ids) do
    if id then
      newest[i] = newest[i] or string.match(id, '^[%d%-]+') -- without the mark of a delete
      if tonumber(string.match(newest[i], '%d+$')) <= wm then
        drop[#drop + 1] = ARGV[i + 2]
        gone[i + 2] = true
      end
    end
  end
  if #drop > 0 then redis.call('HDEL', dirty, unpack(drop)) end
end
for i = 3, #ARGV do
  local id = newest[i - 2]
  if id and tonumber(string.match(id, '%d+$')) > wm then
    kept[#kept + 1] = i - 3
    kept[#kept + 1] = id
  end
  local row = prefix .. 'row:' .. ARGV[i]
  local kind = redis.call('GETRANGE', row, 0, 0)
  if kind == 'W' then
    local marker = redis.call('GET', row)
    if string.sub(marker, -1) ~= '!' then
      redis.call('SET', row, marker .. '!', 'PX', math.max(redis.call('PTTL', row), 1))
    end
  elseif kind ~= '' then
    redis.call('UNLINK', row)
    gone[i] = gone[i] or kind ~= 'L'
  end
  if gone[i] then kept[1] = kept[1] + 1 end
end
return kept
