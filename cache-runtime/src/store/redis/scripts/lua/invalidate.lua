local t, deletes, removed, ended = now(), tonumber(ARGV[1]), 0, {}
for name in ARGV[3]:gmatch('%x+') do ended[name] = true end
for i = 1, deletes do
  local there = header(KEYS[i])
  if is_intent(KEYS[i]) then
    local intents, last = standing(whole(KEYS[i]), t, ended)
    put_intents(KEYS[i], intents, last, t)
  elseif is_ours(KEYS[i]) then
    redis.call('DEL', KEYS[i])
    if not there or has_content(there) then removed = removed + 1 end
  end
end
for i = deletes + 1, #KEYS do
  local nonce, ttl = ARGV[3 + i - deletes], ARGV[2]
  -- Without the mark it is replaced, be there one or not.
  if nonce:sub(1, 1) == '?' then
    local rest = redis.call('PTTL', KEYS[i])
    if rest == -2 then nonce = nil else nonce = nonce:sub(2) end
    -- Who depends on it has extended it.
    if rest > 0 then ttl = rest end
  end
  if nonce then
    local value = whole(KEYS[i])
    local intents = value and standing(value, t, ended) or ''
    put(KEYS[i], nonce .. intents, ttl)
  end
end
return {t, removed}
