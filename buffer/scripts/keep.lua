-- keep: put a list that was loaded, if the lease still stands.
--
-- KEYS  1 list:<query>
-- ARGV  1 lease: L, version, space, token  2 ms to live, '' to give the lease back  3 value
-- gives 1 when it was stored, else 0
--
-- The list lies under the version of its lease: of one that has ended meanwhile
-- nobody is given it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], 'C' .. string.match(ARGV[1], '^L(%S+ )') .. ARGV[2] .. '\n' .. ARGV[3], 'PX', ARGV[2])
return 1
