-- The meta hash of a history: e its epoch, r the mastership under which it was last seen, t its newest offset, x when its oldest entry
-- expires, at the earliest, o its older generations with their last offsets, v and w the newest version and its count, a the marks of the
-- latest entries that were added by a command that was said again.

-- How many older generations are remembered.
local OLDER_MAX = 16

-- A generation is named by the mastership and not by a count: a replica that never heard of the last one would count to the same number.
local function generation(id)
  return string.sub(id, 1, 8)
end

-- The history as it stands here, or nil. After a promotion or a restart the newest entries may be others than the old master gave out:
-- before anything else is said, what survived is written down as the end of the old generation.
local function find(meta, id)
  local kept = redis.call('HMGET', meta, 'e', 'r', 't', 'x', 'o', 'a')
  if not kept[1] then return nil end
  -- What is no work of ours would fail for ever: such a history begins anew.
  if not (string.match(kept[1], '^%x+$') and string.match(kept[2] or '', '^%x+$') and string.match(kept[3] or '', '^%d+$') and #kept[3] <= 16) then
    return nil
  end
  if kept[5] and string.gsub(kept[5] .. ' ', '%x+:%d+ ', '') ~= '' then kept[5] = nil end
  if kept[2] ~= id then
    local older = generation(kept[2]) .. ':' .. kept[3]
    if kept[5] then older = kept[5] .. ' ' .. older end
    if select(2, string.gsub(older, ' ', ' ')) >= OLDER_MAX then older = string.gsub(older, '^%S+ ', '', 1) end
    redis.call('HSET', meta, 'r', id, 'o', older)
    kept[5] = older
  end
  return { epoch = kept[1] .. '.' .. generation(id), top = tonumber(kept[3]), expires = tonumber(kept[4]), older = kept[5] or '', again = kept[6] or '' }
end

-- A history that begins now. What is left of an older one that was forgotten in part goes. The first write is one that a full server
-- refuses: it asks a script once.
local function begin(meta, stream, id)
  local time = redis.call('TIME')
  local epoch = string.sub(redis.sha1hex(id .. time[1] .. '.' .. time[2] .. meta), 1, 16)
  redis.call('HSET', meta, 'e', epoch, 'r', id, 't', '0')
  redis.call('HDEL', meta, 'x', 'o', 'v', 'w')
  redis.call('DEL', stream)
  return { epoch = epoch .. '.' .. generation(id), top = 0, older = '', again = '' }
end

-- Drops entries from the oldest on, up to the first that has not expired. Says when that one will.
local function drop_expired(meta, stream, now)
  while true do
    local page = redis.call('XRANGE', stream, '-', '+', 'COUNT', 32)
    if #page == 0 then
      redis.call('HDEL', meta, 'x')
      return nil
    end
    local last
    for _, entry in ipairs(page) do
      local offset, expires = string.match(entry[1], '^(%d+)%-(%d+)$')
      if tonumber(expires) > now then
        redis.call('XTRIM', stream, 'MINID', '=', entry[1])
        redis.call('HSET', meta, 'x', expires)
        return tonumber(expires)
      end
      last = offset
    end
    redis.call('XTRIM', stream, 'MINID', '=', whole(tonumber(last) + 1) .. '-0')
  end
end
