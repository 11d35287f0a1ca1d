-- fill: put what was loaded, if the lease still stands.
--
-- KEYS  1 row:<key>, 2 meta
-- ARGV  1 lease token  2 C a row, N that there is none, '' to give the lease back
--       3 value  4 ms to live  5 ms to be served beyond that
-- gives 1 when it was stored, else 0
--
-- Any write to the key deletes the lease in the same step in which the row
-- changes, so a slow loader can never put an old row back. The lease to load a
-- clean row again lies in its head, and goes with it.
local now = redis.call('GET', KEYS[1])
if not now then return 0 end
local again = false
if now ~= 'L' .. ARGV[1] then
  if string.match(now, '^C%d* %d+ %d+ ([^\n]*)\n') ~= ARGV[1] then return 0 end
  again = true
end
if ARGV[2] == '' then
  if again then
    local head, at = string.match(now, '^(C%d* %d+ %d+) [^\n]*()\n')
    redis.call('SET', KEYS[1], head .. string.sub(now, at), 'PX', math.max(redis.call('PTTL', KEYS[1]), 1))
  else
    redis.call('DEL', KEYS[1])
  end
  return 0
end
local epoch = redis.call('HGET', KEYS[2], 'epoch') or ''
redis.call('SET', KEYS[1], ARGV[2] .. epoch .. ' ' .. ARGV[4] .. ' ' .. ARGV[5] .. '\n' .. ARGV[3],
  'PX', tonumber(ARGV[4]) + tonumber(ARGV[5]))
return 1
