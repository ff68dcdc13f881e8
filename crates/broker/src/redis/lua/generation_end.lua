-- A generation ends. One that is not there, or whose attempt never began, is left ended and without text.
-- KEYS: hash, text. ARGV: channel to tell, attempt, age, status, how long the whole text is, or '' for as long as it is here
-- Answers 1, or 0 when it is fenced.
local stands = redis.call('HMGET', KEYS[1], 'a', 'd', 's', 'u')
local units = stands[1] == ARGV[2] and stands[4] or '0'
if stands[2] then
  if stands[1] ~= ARGV[2] or stands[3] ~= ARGV[4] then return 0 end
else
  if stands[1] and tonumber(stands[1]) > tonumber(ARGV[2]) then return 0 end
  redis.call('HSET', KEYS[1], 'a', ARGV[2], 's', ARGV[4], 'd', '1', 'u', units)
  if stands[1] ~= ARGV[2] then redis.call('DEL', KEYS[2]) end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
redis.call(PUBLISH, ARGV[1], 'X' .. ARGV[2] .. ' ' .. ARGV[4] .. ' ' .. (ARGV[5] ~= '' and ARGV[5] or units))
return 1
