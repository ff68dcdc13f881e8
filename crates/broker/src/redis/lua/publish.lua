-- One entry: key, version, offset, keeping, trimming and announcing in one step.
-- KEYS: meta, stream[, keys, order of the keys]
-- ARGV: channel to announce on, body, size, age, idle time, version or '', count of the version, and with a key: key, age of keys, most keys;
--       without one: a mark of its own, how long ago this was first said, or '' when it was not
-- Answers {what came of it, offset, epoch}: 0 added, 1 the key was there, 2 the version was, 3 nobody knows any more whether it was added.
local meta, stream = KEYS[1], KEYS[2]
local now, id = clock(), mastership()
local history = find(meta, id) or begin(meta, stream, id)
local top = history.top

-- Entries that are looked at for a mark.
local AGAIN_MAX = 256

-- Whether a command without a key that is said again was carried out before: its entry, true if nobody knows any more, else nothing.
local function added_before()
  local page = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', AGAIN_MAX)
  for _, entry in ipairs(page) do
    if entry[2][4] == ARGV[8] then return entry end
  end
  local since, age = now - tonumber(ARGV[9]), tonumber(ARGV[4])
  local oldest = page[#page]
  if not oldest then return top > 0 and age <= tonumber(ARGV[9]) end
  local offset, expires = string.match(oldest[1], '^(%d+)%-(%d+)$')
  return offset ~= '1' and tonumber(expires) - age >= since
end

if not KEYS[3] and ARGV[9] ~= '' then
  local entry = added_before()
  if entry == true then return { 3, whole(top), history.epoch } end
  if entry then return { 0, string.match(entry[1], '^%d+'), history.epoch } end
  -- The first may be on its way yet, by a connection that was given up.
  redis.call('HSET', meta, 'a', string.sub(history.again .. ARGV[8], -256))
elseif not KEYS[3] and history.again ~= '' and string.find(history.again, ARGV[8], 1, true) then
  return { 3, whole(top), history.epoch }
end
if KEYS[3] then
  -- What is no list is found out here: later the key would be known, and its entry told to nobody.
  redis.call('LLEN', KEYS[4])
  -- A key of another history of this channel counts for nothing.
  local at, offset, epoch = string.match(redis.call('HGET', KEYS[3], ARGV[8]) or '', '^(%d+):(%d+):(%x+)$')
  if at and now - tonumber(at) < tonumber(ARGV[9]) and epoch == string.match(history.epoch, '^%x+') then
    return { 1, offset, history.epoch }
  end
end
if ARGV[6] ~= '' then
  local newest = redis.call('HMGET', meta, 'v', 'w')
  local newer = not string.match(newest[1] or '', '^%d+$') or ARGV[6] > newest[1] or (ARGV[7] ~= '' and ARGV[7] ~= newest[2])
  if not newer then return { 2, whole(top), history.epoch } end
end

local expires = history.expires
if expires and expires <= now then expires = drop_expired(meta, stream, now) end
top = top + 1
local offset, own = whole(top), math.min(now + tonumber(ARGV[4]), 9007199254740991)
redis.call('XADD', stream, 'MAXLEN', '=', ARGV[3], offset .. '-' .. whole(own), 'b', ARGV[2], unpack(KEYS[3] and {} or { 'm', ARGV[8] }))
-- From here on nothing fails: a version or a key without its entry would keep the entry out for ever.
if ARGV[6] ~= '' then redis.call('HSET', meta, 'v', ARGV[6], 'w', ARGV[7]) end
if not expires or own < expires then
  redis.call('HSET', meta, 't', offset, 'x', whole(own))
else
  redis.call('HSET', meta, 't', offset)
end
redis.call('PEXPIRE', stream, ARGV[4])
redis.call('PEXPIRE', meta, ARGV[5])

if KEYS[3] then
  local keys, order, age = KEYS[3], KEYS[4], tonumber(ARGV[9])
  redis.call('HSET', keys, ARGV[8], whole(now) .. ':' .. offset .. ':' .. string.match(history.epoch, '^%x+'))
  local count = redis.call('RPUSH', order, whole(now) .. ':' .. ARGV[8])
  -- Bounded, so that no publication pays for thousands of keys that expired together: each takes more away than it adds.
  for _ = 1, 64 do
    local at, key = string.match(redis.call('LINDEX', order, 0), '^(%d+):(.*)$')
    if at and count <= tonumber(ARGV[10]) and now - tonumber(at) < age then break end
    redis.call('LPOP', order)
    count = count - 1
    -- Unless it was published again since, after its time.
    if at and string.match(redis.call('HGET', keys, key) or '', '^%d+') == at then redis.call('HDEL', keys, key) end
    if count == 0 then break end
  end
  redis.call('PEXPIRE', keys, ARGV[9])
  redis.call('PEXPIRE', order, ARGV[9])
end

redis.call(PUBLISH, ARGV[1], 'E' .. offset .. ' ' .. history.epoch .. ' ' .. ARGV[2])
return { 0, offset, history.epoch }
