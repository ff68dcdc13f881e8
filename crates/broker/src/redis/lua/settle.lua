-- Makes a channel's presence, as far as it is one node's, what that node says it is. Who was not there comes, who should not be there
-- goes, and subscribers hear of it where they are to hear. A node that is dead says that it has nobody. What is no member goes, too.
-- KEYS: presence. ARGV: channel to tell, node, most, client, who, client, who, ...
-- Answers how many were no members.
local node, wanted, weeded = ARGV[2], {}, 0
for at = 4, #ARGV, 2 do wanted[ARGV[at]] = ARGV[at + 1] end
local there = redis.call('HGETALL', KEYS[1])
local count = #there / 2
for at = 1, #there, 2 do
  local client, who = there[at], there[at + 1]
  if wanted[client] then
    if who == wanted[client] then wanted[client] = nil end
  elseif #who < 23 or not string.match(string.sub(who, 1, 21), '^%w+$') then
    redis.call('HDEL', KEYS[1], client)
    count, weeded = count - 1, weeded + 1
  elseif string.sub(who, 1, 20) == node then
    redis.call('HDEL', KEYS[1], client)
    count = count - 1
    if string.sub(who, 21, 21) == '1' then redis.call(PUBLISH, ARGV[1], 'L' .. string.sub(who, 22)) end
  end
end
for client, who in pairs(wanted) do
  if count >= tonumber(ARGV[3]) then break end
  redis.call('HSET', KEYS[1], client, who)
  count = count + 1
  if string.sub(who, 21, 21) == '1' then redis.call(PUBLISH, ARGV[1], 'J' .. string.sub(who, 22)) end
end
return weeded
