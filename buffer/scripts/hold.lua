-- hold: keys of one partition are about to be written in Postgres directly.
--
-- KEYS  1 meta           row:<key> shares its hash tag
-- ARGV  1 prefix  2 strategy of the caller  3 token  4 ms to live  then the keys
-- gives {'K'}            the marker is on every key
--       {'X', strategy}  another strategy is in force
--       {'B', seq}       rows up to this one wait in the log: they come first
--       {'U'}            the partition has no epoch, or a closed one: handshake first
--
-- The caller has the rows locked in Postgres, so markers of one key come in the
-- order of its commits, and the marker of the later one replaces that of the
-- earlier one. While it stands no lease is given out, and none that was given
-- out is of use: so no reader can put back a row that it loaded before. When
-- nothing waits in the log its index is empty, so no reader looks there first.
redis.call('EXISTS', ARGV[1] .. 'here:1', ARGV[1] .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', KEYS[1], 'epoch', 'strategy', 'seq', 'wm', 'closed')
if not m[1] or m[5] then return {'U'} end
local strategy = m[2] or 'write-behind'
if strategy ~= ARGV[2] then return {'X', strategy} end
if tonumber(m[3]) > tonumber(m[4] or '0') then return {'B', m[3]} end
for i = 5, #ARGV do
  redis.call('SET', ARGV[1] .. 'row:' .. ARGV[i], 'W' .. ARGV[3], 'PX', ARGV[4])
end
return {'K'}
