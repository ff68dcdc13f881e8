-- Forgets channels that a name has told of, unless somebody has come to hold them.
-- KEYS: records, what the name holds, the names that hold something. ARGV: name, channel, serial, channel, serial, ...
for at = 2, #ARGV, 2 do
  local record = find(ARGV[at])
  if not record or not is_held_by(record, ARGV[1]) then redis.call('SREM', KEYS[2], ARGV[at]) end
  if record and record.names == '' and record.serial == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('SREM', KEYS[3], ARGV[1]) end
return 1
