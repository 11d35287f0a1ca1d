-- reopen: every process has given back what it held: the epoch is open.
--
-- KEYS  1 meta, 2 joined, 3 returned, 4 moved, 5 torn
-- ARGV  1 prefix  2 epoch  3 '1': clean rows may be older than Postgres
-- gives 1, or 0 when that epoch is not the one that waits
local m = redis.call('HMGET', KEYS[1], 'epoch', 'closed', 'seq', 'wm')
if m[1] ~= ARGV[2] or not m[2] then return 0 end
redis.call('HDEL', KEYS[1], 'closed', 'kept', 'reindex', 'lost')
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'cache', m[1]) end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
local place = string.match(ARGV[1], '{(.*)}')
redis.call('PUBLISH', 'hp:opened', place)
if tonumber(m[3]) > tonumber(m[4] or '0') then redis.call('PUBLISH', 'hp:wake', place) end
return 1
