-- join: a process gives back what it holds of rows that Redis has lost.
--
-- KEYS  1 meta, 2 joined, 3 returned, 4 moved
-- ARGV  1 epoch  2 process, '' while there is more to come  3 the newest row that was acknowledged: its id, or ''
--       4 '1' when it is said of a process that died
--       then for each unit: its name, itself
-- gives 1, or 0 when that epoch is not the one that waits
--
-- Repeating it changes nothing.
local m = redis.call('HMGET', KEYS[1], 'epoch', 'closed')
if m[1] ~= ARGV[1] or not m[2] then return 0 end
for i = 5, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[4], ARGV[i]) == 0 then redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ' ' .. ARGV[4]) end
return 1
