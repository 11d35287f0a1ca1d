-- list: a cached list of a table, or the lease to load it.
--
-- KEYS  1 lists: the version of the table's lists  2 list:<query>
-- ARGV  1 token, '' when a miss is not loaded  2 lease, ms
--       3 '1' for a lease to load the list again, whatever lies here, else ''
--       4 a new version lives so many ms
-- gives {'C', value, ms left, ms to live}
--       {'L', version}  a miss, and the caller holds the lease to load it
--       {'W', version}  a miss, and somebody else holds it
--       {'M'}  a miss, and no lease was asked for
--
-- It must preserve: what was loaded under another version than the present one is
-- a miss, lists and leases alike. A version is the token of whoever made it, so
-- none ever comes back, whatever Redis loses or evicts.
local version = redis.call('GET', KEYS[1])
local entry = version and redis.call('GET', KEYS[2])
if entry and ARGV[3] == '' then
  local kind, of, at = string.match(entry, '^([CL])(%S+) ()')
  if of == version and kind == 'C' then
    local ttl, from = string.match(entry, '^(%d+)\n()', at)
    return {'C', string.sub(entry, from), redis.call('PTTL', KEYS[2]), tonumber(ttl)}
  end
  if of == version and ARGV[1] ~= '' then return {'W', version} end
end
if ARGV[1] == '' then return {'M'} end
if not version then
  version = ARGV[1]
  redis.call('SET', KEYS[1], version, 'PX', ARGV[4])
end
redis.call('SET', KEYS[2], 'L' .. version .. ' ' .. ARGV[1], 'PX', ARGV[2])
return {'L', version}
