-- A node lives.
-- KEYS: nodes, reports. ARGV: node, lease, report or ''
-- Answers {whether it was known to live, the mastership, the nodes that live, those that do not, how often garbage was put
-- out of the way: what it had taken the place of is to be said again}.
local now = clock()
-- First, while nothing is written: said again, it would have been known to live.
local mended = redis.call('HGET', KEYS[2], '') or ''
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], whole(now + tonumber(ARGV[2])), ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end
local live = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. whole(now), '+inf')
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(now))
return { (until_ms and tonumber(until_ms) > now) and 1 or 0, mastership(), live, dead, mended }
