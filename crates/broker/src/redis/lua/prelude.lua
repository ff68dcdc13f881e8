-- What scripts begin with. SHIFT_MS and PUBLISH are put in by scripts.rs; offsets stay below 2^53 and are written by `%.0f`.

-- The server's time in milliseconds: the only clock by which things are forgotten.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) + SHIFT_MS
end

-- Names this run of this server as a master: another one after every promotion and every start.
local function mastership()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

local function whole(number)
  return string.format('%.0f', number)
end
