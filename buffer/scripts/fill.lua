-- fill: put a loaded row, if the lease still stands.
--
-- KEYS  1 row:<key>, 2 meta
-- ARGV  1 lease token  2 value, '' to give the lease back  3 ms to live
-- gives 1 when it was stored, else 0
--
-- Any write to the key deletes the lease in the same step in which the row
-- changes, so a slow loader can never put an old row back.
if redis.call('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  return 0
end
local epoch = redis.call('HGET', KEYS[2], 'epoch') or ''
redis.call('SET', KEYS[1], 'C' .. epoch .. '\n' .. ARGV[2], 'PX', ARGV[3])
return 1
