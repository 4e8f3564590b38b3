local t, kills, removed, ended = now(), tonumber(ARGV[1]), 0, {}
for name in ARGV[3]:gmatch('%x+') do ended[name] = true end
for i = 1, kills do
  local there = header(KEYS[i])
  if is_intent(KEYS[i]) then
    local intents, last = standing(whole(KEYS[i]), t, ended)
    put_intents(KEYS[i], intents, last, t)
  elseif is_ours(KEYS[i]) then
    redis.call('DEL', KEYS[i])
    if not there or has_content(there) then removed = removed + 1 end
  end
end
for i = kills + 1, #KEYS do
  local nonce = ARGV[3 + i - kills]
  if nonce:sub(1, 1) ~= '?' then
    -- It is replaced, be there one or not.
  elseif redis.call('EXISTS', KEYS[i]) == 1 then
    nonce = nonce:sub(2)
  else
    nonce = nil
  end
  if nonce then
    local value = whole(KEYS[i])
    local intents = value and standing(value, t, ended) or ''
    put(KEYS[i], nonce .. intents, ARGV[2])
  end
end
return {t, removed}
