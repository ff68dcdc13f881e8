-- Takes members out of a presence that nobody can read, unless they have become others.
-- KEYS: presence. ARGV: client, who, client, who, ...
-- Answers how many.
local weeded = 0
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then weeded = weeded + redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return weeded
