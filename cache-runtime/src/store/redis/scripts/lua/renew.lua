local t, length, renewed = now(), ARGV[1], {}
for i, key in ipairs(KEYS) do
  local there = header(key)
  renewed[i] = 0
  if there and token(there) == ARGV[i + 1] then
    local rest = redis.call('PTTL', key)
    redis.call('SETRANGE', key, 0, with_deadline(there, t + length))
    if rest < tonumber(length) then redis.call('PEXPIRE', key, length) end
    renewed[i] = 1
  end
end
return renewed
