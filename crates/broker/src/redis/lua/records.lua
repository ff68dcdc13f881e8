-- Who holds which channels: the records are a hash of a part's channels, each '{serial} {teller} {name} {name} ...', with the latest serial
-- at ''; what each name holds is a set. Rust takes the same steps (`occupancy/record.rs`). Names are letters and digits of one length.

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A serial, or nil: what is no number of ours, or one beyond which none could rise, is none.
local function read_serial(text)
  local serial = string.match(text or '', '^%d+$')
  serial = serial and tonumber(serial)
  return serial and serial < 9000000000000000 and serial or nil
end

-- Rises in all of a part, also after everything was lost, as far as the clock does.
local function next_serial()
  local last = read_serial(redis.call('HGET', KEYS[1], '')) or 0
  local serial = whole(math.max(micros(), last + 1))
  redis.call('HSET', KEYS[1], '', serial)
  return serial
end

-- A channel's record, or nil; what is no record is none.
local function find(channel)
  local serial, teller, names = string.match(redis.call('HGET', KEYS[1], channel) or '', '^(%d+) (%w+)(.*)$')
  return read_serial(serial) and { serial = serial, teller = teller, names = names }
end

local function keep(channel, record)
  redis.call('HSET', KEYS[1], channel, record.serial .. ' ' .. record.teller .. record.names)
end

local function is_held_by(record, name)
  return string.find(record.names, ' ' .. name, 1, true) ~= nil
end
