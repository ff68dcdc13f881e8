-- Where histories stand.
-- KEYS: the meta hashes. ARGV: how long a position in a history that has not begun stays true
-- Answers {offset, epoch, offset, epoch, ...} in the order of the keys, with '' for what nothing is kept of.
local id = mastership()
local answer = {}
for _, meta in ipairs(KEYS) do
  local history = find(meta, id)
  if history and history.top == 0 then redis.call('PEXPIRE', meta, ARGV[1]) end
  answer[#answer + 1] = history and whole(history.top) or ''
  answer[#answer + 1] = history and history.epoch or ''
end
return answer
