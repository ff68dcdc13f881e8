-- Removes what a history keeps; where it stands and its keys stay.
-- KEYS: meta, stream
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[1], 'x')
return 1
