-- fill: put what was loaded, if what the reader found still lies there.
--
-- KEYS  1 row:<key>, 2 refresh:<key>
-- ARGV  1 what the reader found: its lease, or the head of a clean row or of a
--         word that there is none  2 value, '' for none  3 ms to live
-- gives 1 when it was stored, else 0
--
-- Any write to the key takes away what lies there in the same step in which the
-- row changes, and no two values have the same head: so a slow loader can never
-- put an old row back. Rows with keys that Headpond makes do not; but those are
-- drawn at random, so nobody has asked for one of them before.
local there, found = redis.call('GET', KEYS[1]), ARGV[1]
if not there then return 0 end
if string.sub(found, 1, 1) == 'L' then
  if there ~= found then return 0 end
elseif string.sub(there, 1, #found) ~= found then
  return 0
else
  redis.call('DEL', KEYS[2])
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
