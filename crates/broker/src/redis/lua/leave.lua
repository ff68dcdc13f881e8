-- Somebody is gone.
-- KEYS: presence. ARGV: channel to tell, client, whether to tell
local who = redis.call('HGET', KEYS[1], ARGV[2])
if not who then return 0 end
redis.call('HDEL', KEYS[1], ARGV[2])
if ARGV[3] == '1' then redis.call(PUBLISH, ARGV[1], 'L' .. string.sub(who, 22)) end
return 1
