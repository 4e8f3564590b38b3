for _, key in ipairs(KEYS) do
  local rest = redis.call('PTTL', key)
  if rest >= 0 and rest < ARGV[1] / 2 then redis.call('PEXPIRE', key, ARGV[1]) end
end
return 1
