-- release: a direct write is over: put its rows, or nothing, where its markers
-- still are. A later writer's marker stays: it says what comes then.
--
-- KEYS  1 meta           row:<key> shares its hash tag
-- ARGV  1 prefix  2 token  3 ms to live  4 the rest of a clean row's head  then for each key: key, value ('' for none)
-- gives how many rows were put
redis.call('EXISTS', ARGV[1] .. 'here:1', ARGV[1] .. 'here:2') -- an error while the slot is being moved: see moving in errors.go
local epoch = redis.call('HGET', KEYS[1], 'cache') or ''
local put = 0
for i = 5, #ARGV, 2 do
  local row = ARGV[1] .. 'row:' .. ARGV[i]
  if redis.call('GET', row) == 'W' .. ARGV[2] then
    if ARGV[i + 1] == '' then
      redis.call('DEL', row)
    else
      redis.call('SET', row, 'C' .. epoch .. ARGV[4] .. ARGV[i + 1], 'PX', ARGV[3])
      put = put + 1
    end
  end
end
return put
