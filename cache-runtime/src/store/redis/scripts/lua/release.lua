local there = header(KEYS[1])
if not there or token(there) ~= ARGV[1] then return 0 end
if has_content(there) then
  redis.call('SETRANGE', KEYS[1], 0, with_token(there, NO_TOKEN))
else
  redis.call('DEL', KEYS[1])
end
return 1
