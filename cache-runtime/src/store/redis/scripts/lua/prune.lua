local t = now()
if is_intent(KEYS[1]) then
  local intents, last = standing(whole(KEYS[1]), t, {})
  put_intents(KEYS[1], intents, last, t)
end
for i = 2, #KEYS do
  local value = whole(KEYS[i])
  local intents = value and standing(value, t, {})
  if intents and value:sub(33) ~= intents then put(KEYS[i], ARGV[i] .. intents, ARGV[1]) end
end
return 1
