for i = 1, #KEYS do
  redis.call('APPEND', KEYS[i], ARGV[2])
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
local own = {}
for i = 4, #ARGV do own[ARGV[i]] = true end
local ahead, seen, looked = { ARGV[2] }, {}, 0
while #ahead > 0 and looked < 64 do
  local load = table.remove(ahead)
  if own[load] then return 1 end
  if not seen[load] then
    seen[load] = true
    looked = looked + 1
    local waits = redis.pcall('GET', ARGV[1] .. load)
    if type(waits) == 'string' then
      for token in waits:gmatch(('%x'):rep(TOKEN_LEN)) do ahead[#ahead + 1] = token end
    end
  end
end
return 0
