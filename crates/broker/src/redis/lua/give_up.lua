-- Takes some of what a dead name held from it; what it may not have told any more is told by whoever finds it.
-- KEYS: records, what the dead one holds, what the finder holds, the names that hold something.
-- ARGV: dead, finder, most, how old in microseconds what was told may be
-- Answers {whether that was all, channel, whether it is held, serial, ...}.
local dead, finder = ARGV[1], ARGV[2]
local since = micros() - tonumber(ARGV[4])
local answer = { 0 }
-- If these are no sets, nothing has changed yet: a change that was made and not answered would be told by nobody.
redis.call('SCARD', KEYS[3])
redis.call('SADD', KEYS[4], finder)
for _, channel in ipairs(redis.call('SRANDMEMBER', KEYS[2], ARGV[3])) do
  local record = find(channel)
  if record then
    local was_held = is_held_by(record, dead)
    record.names = string.gsub(record.names, ' ' .. dead, '')
    local nobody, told = record.names == '', false
    if was_held and nobody then
      record.serial, record.teller, told = next_serial(), finder, true
    elseif record.teller == dead and (nobody or tonumber(record.serial) >= since) then
      record.teller, told = finder, true
    end
    keep(channel, record)
    if told then
      redis.call('SADD', KEYS[3], channel)
      answer[#answer + 1] = channel
      answer[#answer + 1] = nobody and '0' or '1'
      answer[#answer + 1] = record.serial
    end
  end
  redis.call('SREM', KEYS[2], channel)
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SREM', KEYS[4], dead)
  answer[1] = 1
end
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('SREM', KEYS[4], finder) end
return answer
