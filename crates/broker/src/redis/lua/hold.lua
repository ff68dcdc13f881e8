-- A name holds a channel, or holds it no more.
-- KEYS: records, what the name holds, the names that hold something. ARGV: channel, name, whether it holds it
-- Answers {whether it was the first or the last, the serial of the latest change, whether that is the name's, whether anybody holds it}.
local channel, name, holds = ARGV[1], ARGV[2], ARGV[3] == '1'
local known = find(channel)
local record = known or { serial = '0', teller = name, names = '' }
local was_held = is_held_by(record, name)
local changed
if holds then
  changed = record.names == ''
  if not was_held then record.names = record.names .. ' ' .. name end
else
  record.names = string.gsub(record.names, ' ' .. name, '')
  -- Of what was lost nobody knows whether somebody else holds it: whoever does says it again, and that comes later.
  changed = not known or (was_held and record.names == '')
end
-- Before the record: if these are no sets, nothing has changed yet. What it was the last to hold stays with it until it has been told: whoever
-- finds it dead finds that too.
if holds or changed then
  redis.call('SADD', KEYS[3], name)
  redis.call('SADD', KEYS[2], channel)
end
if changed then record.serial, record.teller = next_serial(), name end
if changed or was_held ~= holds then keep(channel, record) end
if not holds and not changed and not (record.names == '' and record.teller == name) then
  redis.call('SREM', KEYS[2], channel)
end
return { changed and 1 or 0, record.serial, record.teller == name and 1 or 0, record.names == '' and 0 or 1 }
