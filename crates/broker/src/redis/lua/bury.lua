-- A node is off the list, if it still does not live or says so itself.
-- KEYS: nodes, reports. ARGV: node, whether it says so itself
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] ~= '1' and until_ms and tonumber(until_ms) > clock() then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
