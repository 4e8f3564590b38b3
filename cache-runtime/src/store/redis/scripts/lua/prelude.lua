-- What all scripts share. The constants before it are those of the entry's layout.

-- How long an intent lasts that does not say so, in ms.
local UNKNOWN = 600000

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function time(ms) return string.format('%0' .. TIME_LEN .. '.0f', ms) end

-- A part of a string, and something else for a value of another type. Any other error ends the script: if the user
-- lacks the permission, nothing shows whether the value is somebody else's.
local function range(key, first, last)
  local text = redis.pcall('GETRANGE', key, first, last)
  if type(text) == 'table' and not text.err:find('WRONGTYPE', 1, true) then redis.call('GETRANGE', key, first, last) end
  return text
end

-- The header under a key; nil if there is nothing, false if it is somebody else's.
local function header(key)
  local h = range(key, 0, LEN - 1)
  if type(h) ~= 'string' then return false end
  if h == '' then
    if redis.call('EXISTS', key) == 1 then return false end
    return nil
  end
  if #h < LEN or h:sub(1, #MAGIC + 1) ~= MAGIC .. ' ' or h:sub(LEN) ~= '\n' then return false end
  return h
end

-- Whether the key holds an entry of this framework, of whatever version: an older program must be able to
-- invalidate what a newer one has stored.
local function is_ours(key)
  local start = range(key, 0, #MAGIC)
  return type(start) == 'string' and start:find('^' .. MAGIC:sub(1, -2) .. '%d ') ~= nil
end

-- Whether the key holds write intents in place of an entry.
local function is_intent(key) return range(key, 0, #INTENTS - 1) == INTENTS end

-- A whole value; without its content if it is longer than anything of ours, and nil for what is no string.
local function whole(key)
  local beyond = range(key, READ_LIMIT, READ_LIMIT)
  if type(beyond) ~= 'string' then return nil end
  return beyond == '' and redis.call('GET', key) or ''
end

-- Whether a deadline lies further ahead than what lasts for `length` ever reaches: it is from before the clock was set back.
local function is_beyond(ends, t, length) return ends - t > length end

-- The intents in a value that stand after `t`, without those named, and the last of their deadlines. With -1, all of them.
local function standing(value, t, without)
  local intents, last = {}, 0
  for name, at in value:gmatch(' (%x+)@(%d+)') do
    local ends, length = tonumber(at), tonumber(name:sub(TOKEN_LEN + 1), 16) or UNKNOWN
    local is_over = t >= 0 and (ends <= t or is_beyond(ends, t, length))
    if not is_over and not without[name:sub(1, TOKEN_LEN)] then
      intents[#intents + 1] = ' ' .. name .. '@' .. at
      if ends > last then last = ends end
    end
  end
  return table.concat(intents), last
end

-- A server that is over its memory limit and may not evict refuses SET, but not after a DEL.
local function put(key, value, ttl)
  redis.call('DEL', key)
  redis.call('SET', key, value, 'PX', ttl)
end

-- Puts intents in the place of an entry; without any, nothing. One that ends now is kept for as long as Redis can.
local function put_intents(key, intents, last, t)
  if intents == '' then redis.call('DEL', key) else put(key, INTENTS .. intents, math.max(last - t, 1)) end
end

-- Fields are counted from 0, as in `layout`; Lua counts from 1.
local function field(h, start, length) return h:sub(start + 1, start + length) end

local function token(h) return field(h, TOKEN, TOKEN_LEN) end
local function deadline(h) return tonumber(field(h, DEADLINE, TIME_LEN)) end
local function kind(h) return field(h, KIND, 1) end
local function has_content(h) return field(h, CONTENT, 1) ~= '-' end
local function stored(h) return tonumber(field(h, STORED, TIME_LEN)) end

-- Whether two headers are the same but for the deadline, which the holder of a lease may have moved.
local function same(a, b)
  return a:sub(1, DEADLINE) == b:sub(1, DEADLINE) and a:sub(STAMP) == b:sub(STAMP)
end

-- Whether two headers speak of the same generations and the same type.
local function same_value(a, b)
  return field(a, STAMP, TOKEN_LEN) == field(b, STAMP, TOKEN_LEN)
    and field(a, FINGERPRINT, FINGERPRINT_LEN) == field(b, FINGERPRINT, FINGERPRINT_LEN)
end

local function with_token(h, token) return h:sub(1, TOKEN) .. token .. h:sub(DEADLINE) end
local function with_deadline(h, ms) return h:sub(1, DEADLINE) .. time(ms) .. h:sub(STAMP) end
local function with_times(h, stored, fresh, stale)
  return h:sub(1, STORED) .. time(stored) .. ' ' .. time(fresh) .. ' ' .. time(stale) .. h:sub(STALE + TIME_LEN + 1)
end

local function stale(h) return tonumber(field(h, STALE, TIME_LEN)) end

-- The same as if its content had expired, which it does by then. How long it may be served after that stays the same.
local function expired_at(h, t)
  local fresh = tonumber(field(h, STORED + TIME_LEN + 1, TIME_LEN))
  if fresh <= t then return h end
  return with_times(h, stored(h), t, t + stale(h) - fresh)
end
