-- Takes keys away that are not what we write.
-- KEYS: any. ARGV: what each is to be; the last counts for all that follow
-- Answers those that were taken away.
local mended = {}
for at, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= (ARGV[at] or ARGV[#ARGV]) then
    redis.call('DEL', key)
    mended[#mended + 1] = key
  end
end
return mended
