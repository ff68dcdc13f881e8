-- What a name holds, by the records too, and what it does not hold but made the latest change of.
-- KEYS: records, what the name holds. ARGV: name
-- Answers {{channel, ...}, {channel, whether it is held, serial, ...}}.
local held, made = {}, {}
for _, channel in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local record = find(channel)
  if record and is_held_by(record, ARGV[1]) then
    held[#held + 1] = channel
  elseif record and record.teller == ARGV[1] then
    made[#made + 1] = channel
    made[#made + 1] = record.names == '' and '0' or '1'
    made[#made + 1] = record.serial
  else
    redis.call('SREM', KEYS[2], channel)
  end
end
return { held, made }
