-- lose: rows that were acknowledged are lost. They become a frame without rows,
-- so that the flush counts them in the transaction in which it passes them.
--
-- KEYS  1 log, 2 meta
-- ARGV  1 epoch  2 how many rows
-- gives 1, or 0 when it was done already, or that epoch is not the one that waits
local m = redis.call('HMGET', KEYS[2], 'epoch', 'closed', 'lost', 'seq', 'bytes')
if m[1] ~= ARGV[1] or not m[2] or m[3] then return 0 end
local last = string.format('%.0f', tonumber(m[4]) + tonumber(ARGV[2]))
redis.call('XADD', KEYS[1], m[1] .. '-' .. last, 'l', ARGV[2], 'b', m[5])
redis.call('HSET', KEYS[2], 'seq', last, 'lost', ARGV[2])
return 1
