local t, rows, own, on_whole = now(), tonumber(ARGV[1]), ARGV[3], 0
local ends = t + ARGV[4]
local mark = ' ' .. own .. string.format('%08x', ARGV[4]) .. '@' .. time(ends)

-- The intents of others, and whether the own one stands and is only to be renewed: then nothing else changes.
local function others(value)
  local renews = ARGV[5] == 'renew' and value:find(' ' .. own, 1, true) ~= nil
  local intents, last = standing(value, renews and -1 or t, {[own] = true})
  return intents, math.max(last, ends), renews
end

local function announce(key, nonce)
  local value, ttl = whole(key) or '', ARGV[2]
  local intents, last, renews = others(value)
  if nonce:sub(1, 1) == '?' then
    nonce = nonce:sub(2)
    -- A row: nothing depends on it unless it is there, or made by a reader, who extends it.
    local rest = redis.call('PTTL', key)
    if rest ~= -1 then ttl = math.max(rest, last - t) end
  end
  if renews and not value:sub(1, 32):find('[^0-9a-f]') then nonce = value:sub(1, 32) end
  put(key, nonce .. intents .. mark, ttl)
end

for i = 1, rows do
  if header(KEYS[i]) == false and not is_ours(KEYS[i]) then
    -- In a cluster the resource's generation lies elsewhere, and is announced by a step of its own.
    if KEYS[rows + i] then announce(KEYS[rows + i], ARGV[5 + i]) end
    on_whole = 1
  else
    local intents, last = others(is_intent(KEYS[i]) and whole(KEYS[i]) or '')
    put_intents(KEYS[i], intents .. mark, last, t)
  end
end
for i = 2 * rows + 1, #KEYS do announce(KEYS[i], ARGV[5 + i - rows]) end
return {t, on_whole}
