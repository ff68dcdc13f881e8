-- Text of the attempt that writes.
-- KEYS: hash, text. ARGV: channel to tell, attempt, age, text, its UTF-16 units, most bytes, where the text ends so far
-- Answers 1, 0 when it is fenced, 2 when it is too long, or where the text truly ends: -1 for 0, -2 for 1, and so on.
local stands = redis.call('HMGET', KEYS[1], 'a', 'd', 'u')
if stands[1] ~= ARGV[2] or stands[2] then return 0 end
if stands[3] ~= ARGV[7] then return -1 - tonumber(stands[3]) end
if redis.call('STRLEN', KEYS[2]) + #ARGV[4] > tonumber(ARGV[6]) then return 2 end
redis.call('APPEND', KEYS[2], ARGV[4])
redis.call('HINCRBY', KEYS[1], 'u', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call(PUBLISH, ARGV[1], 'D' .. ARGV[2] .. ' ' .. stands[3] .. ' ' .. ARGV[4])
return 1
