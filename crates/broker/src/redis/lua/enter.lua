-- Somebody is present.
-- KEYS: presence. ARGV: channel to tell, client, who, most, whether to tell
-- Answers 1, or 0 when there is no room.
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
if ARGV[5] == '1' then redis.call(PUBLISH, ARGV[1], 'J' .. string.sub(ARGV[3], 22)) end
return 1
