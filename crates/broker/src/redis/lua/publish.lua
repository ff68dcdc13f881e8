-- One entry: key, version, offset, keeping, trimming and announcing in one step.
-- KEYS: meta, stream[, keys, order of the keys]
-- ARGV: channel to announce on, body, size, age, idle time, version or '', count of the version[, key, age of keys, most keys]
-- Answers {what came of it, offset, epoch}: 0 added, 1 the key was there, 2 the version was.
local meta, stream = KEYS[1], KEYS[2]
local now, id = clock(), mastership()
local history = find(meta, id) or begin(meta, stream, id)
local top = history.top

if ARGV[8] then
  -- A key of another history of this channel counts for nothing.
  local at, offset, epoch = string.match(redis.call('HGET', KEYS[3], ARGV[8]) or '', '^(%d+):(%d+):(%x+)$')
  if at and now - tonumber(at) < tonumber(ARGV[9]) and epoch == string.match(history.epoch, '^%x+') then
    return { 1, offset, history.epoch }
  end
end
if ARGV[6] ~= '' then
  local newest = redis.call('HMGET', meta, 'v', 'w')
  local newer = not newest[1] or ARGV[6] > newest[1] or (ARGV[7] ~= '' and ARGV[7] ~= newest[2])
  if not newer then return { 2, whole(top), history.epoch } end
  redis.call('HSET', meta, 'v', ARGV[6], 'w', ARGV[7])
end

local expires = history.expires
if expires and expires <= now then expires = drop_expired(meta, stream, now) end
top = top + 1
local offset, own = whole(top), math.min(now + tonumber(ARGV[4]), 9007199254740991)
redis.call('XADD', stream, 'MAXLEN', '=', ARGV[3], offset .. '-' .. whole(own), 'b', ARGV[2])
if not expires or own < expires then
  redis.call('HSET', meta, 't', offset, 'x', whole(own))
else
  redis.call('HSET', meta, 't', offset)
end
redis.call('PEXPIRE', stream, ARGV[4])
redis.call('PEXPIRE', meta, ARGV[5])

if ARGV[8] then
  local keys, order, age = KEYS[3], KEYS[4], tonumber(ARGV[9])
  redis.call('HSET', keys, ARGV[8], whole(now) .. ':' .. offset .. ':' .. string.match(history.epoch, '^%x+'))
  local count = redis.call('RPUSH', order, whole(now) .. ':' .. ARGV[8])
  -- Bounded, so that no publication pays for thousands of keys that expired together: each takes more away than it adds.
  for _ = 1, 64 do
    local at, key = string.match(redis.call('LINDEX', order, 0), '^(%d+):(.*)$')
    if count <= tonumber(ARGV[10]) and now - tonumber(at) < age then break end
    redis.call('LPOP', order)
    count = count - 1
    -- Unless it was published again since, after its time.
    if string.match(redis.call('HGET', keys, key) or '', '^%d+') == at then redis.call('HDEL', keys, key) end
    if count == 0 then break end
  end
  redis.call('PEXPIRE', keys, ARGV[9])
  redis.call('PEXPIRE', order, ARGV[9])
end

redis.call(PUBLISH, ARGV[1], 'E' .. offset .. ' ' .. history.epoch .. ' ' .. ARGV[2])
return { 0, offset, history.epoch }
