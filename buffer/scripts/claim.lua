-- claim: remember under which name a request was sent, and its sum.
--
-- KEYS  1 meta           marks:<g> share its hash tag
-- ARGV  1 prefix  2 name  3 sum  4 now, ms  5 most marks of a generation  6 most ms of a generation
-- gives the sum that was claimed first: this one's when nobody was before
local meta, prefix, name = KEYS[1], ARGV[1], ARGV[2]
redis.call('EXISTS', prefix .. 'here:1', prefix .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local m = redis.call('HMGET', meta, 'ig', 'in', 'it')
local g, n, since = tonumber(m[1] or '1'), tonumber(m[2] or '0'), tonumber(m[3] or ARGV[4])
local sum = redis.call('HGET', prefix .. 'marks:' .. g, name) or redis.call('HGET', prefix .. 'marks:' .. (g - 1), name)
if sum then return sum end
if n >= tonumber(ARGV[5]) or tonumber(ARGV[4]) - since >= tonumber(ARGV[6]) then
  redis.call('UNLINK', prefix .. 'marks:' .. (g - 1))
  g, n, since = g + 1, 0, tonumber(ARGV[4])
end
redis.call('HSET', prefix .. 'marks:' .. g, name, ARGV[3])
redis.call('HSET', meta, 'ig', g, 'in', n + 1, 'it', string.format('%.0f', since))
return ARGV[3]
