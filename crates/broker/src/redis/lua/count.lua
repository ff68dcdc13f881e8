-- How many clients and how many users are present.
-- KEYS: presence. ARGV: the nodes that live
local lives = {}
for _, node in ipairs(ARGV) do lives[node] = true end
local clients, users, seen = 0, 0, {}
for _, who in ipairs(redis.call('HVALS', KEYS[1])) do
  -- What is too short is no member.
  if #who >= 23 and lives[string.sub(who, 1, 20)] then
    clients = clients + 1
    local length = struct.unpack('<I2', who, 22)
    local user = string.sub(who, 24, 23 + length)
    if not seen[user] then
      seen[user] = true
      users = users + 1
    end
  end
end
return { clients, users }
