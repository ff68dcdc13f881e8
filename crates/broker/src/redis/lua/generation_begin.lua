-- An attempt at a generation begins. The hash: a its attempt, u the UTF-16 units of its text, s its status, d whether it has ended.
-- KEYS: hash, text. ARGV: channel to tell, attempt, age
-- Answers 1, or 0 when it is fenced.
local stands = redis.call('HMGET', KEYS[1], 'a', 'd')
if stands[1] and (tonumber(stands[1]) >= tonumber(ARGV[2]) or stands[2]) then return 0 end
-- First what a full server refuses: it asks a script once.
redis.call('HSET', KEYS[1], 'a', ARGV[2], 'u', '0', 's', 'running')
redis.call('DEL', KEYS[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call(PUBLISH, ARGV[1], 'R' .. ARGV[2])
return 1
