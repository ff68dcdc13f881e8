-- A page of a history.
-- KEYS: meta, stream
-- ARGV: size, way ('F' or 'B'), bound (the offset after which, or before which, to read; '' for all), most entries, most bytes,
--       how long a position in a history that has not begun stays true
-- Answers {epoch, top, older generations, whether that is all, id, body, id, body, ...}.
local meta, stream = KEYS[1], KEYS[2]
local now, id = clock(), mastership()
local history = find(meta, id) or begin(meta, stream, id)
if history.top == 0 then
  redis.call('PEXPIRE', meta, ARGV[6])
  return { history.epoch, '0', history.older, 1 }
end
if history.expires and history.expires <= now then drop_expired(meta, stream, now) end
local size = tonumber(ARGV[1])
local length = redis.call('XLEN', stream)
if length > size then
  redis.call('XTRIM', stream, 'MAXLEN', '=', ARGV[1])
  length = size
end
local top = history.top
local oldest = top + 1 - length
local answer = { history.epoch, whole(top), history.older, 1 }

local forward = ARGV[2] == 'F'
local from, to, complete
if forward then
  from, to = oldest, top
  if ARGV[3] ~= '' then from = tonumber(ARGV[3]) + 1 end
  complete = from >= oldest
else
  from, to = top, 1
  if ARGV[3] ~= '' then from = math.min(from, tonumber(ARGV[3]) - 1) end
  complete = oldest == 1 or from < 1
end
local entries, bytes, taken = tonumber(ARGV[4]), tonumber(ARGV[5]), 0
local step = forward and 1 or -1
local at = forward and math.max(from, oldest) or from
while true do
  if (forward and at > to) or (not forward and at < oldest) then break end
  -- One more than fits tells whether that was all.
  local count = math.min(64, entries - taken + 1)
  local page
  if forward then
    page = redis.call('XRANGE', stream, whole(at), '+', 'COUNT', count)
  else
    page = redis.call('XREVRANGE', stream, whole(at), '-', 'COUNT', count)
  end
  if #page == 0 then break end
  local full = false
  for _, entry in ipairs(page) do
    local body = entry[2][2]
    local length = struct.unpack('<I4', body, 2)
    if length ~= 4294967295 then bytes = bytes - length end
    if taken >= entries or (bytes < 0 and taken > 0) then
      full = true
      break
    end
    taken = taken + 1
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = body
  end
  if full then
    complete = false
    break
  end
  at = at + step * #page
end
if not complete then answer[4] = 0 end
return answer
