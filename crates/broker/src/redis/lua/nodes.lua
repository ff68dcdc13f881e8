-- The nodes that live: {node, report or '', node, report or '', ...}.
-- KEYS: nodes, reports
local answer = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. whole(clock()), '+inf')) do
  answer[#answer + 1] = node
  answer[#answer + 1] = redis.call('HGET', KEYS[2], node) or ''
end
return answer
