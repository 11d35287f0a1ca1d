-- reindex: put keys of the log into an index that was lost, oldest first.
--
-- KEYS  1 meta           dirty:<g> shares its hash tag
-- ARGV  1 prefix  2 epoch  then for each row: key, id (with a d behind it when it is a delete)
-- gives 1, or 0 when that epoch is not the one that waits
redis.call('EXISTS', ARGV[1] .. 'here:1', ARGV[1] .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', KEYS[1], 'epoch', 'closed', 'gen', 'gn')
if m[1] ~= ARGV[2] or not m[2] then return 0 end
local dirty = ARGV[1] .. 'dirty:' .. (m[3] or '1')
for i = 3, #ARGV, 2 do redis.call('HSET', dirty, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'gn', string.format('%.0f', tonumber(m[4] or '0') + (#ARGV - 2) / 2))
return 1
