-- The text so far: {attempt, status, text}, or nothing.
-- KEYS: hash, text
local stands = redis.call('HMGET', KEYS[1], 'a', 's')
if not stands[1] then return false end
return { stands[1], stands[2], redis.call('GET', KEYS[2]) or '' }
