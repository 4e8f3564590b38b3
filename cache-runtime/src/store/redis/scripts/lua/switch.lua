-- Not more than may be read: the value may be somebody else's.
local names, list = {}, redis.call('GETRANGE', KEYS[1], 0, ARGV[4])
-- Where the list was lost, it is what the caller knew of it.
if list == '' then list = redis.call('GET', KEYS[1]) or ARGV[3] end
if #list > tonumber(ARGV[4]) then
  return redis.error_reply('ERR the list of switched-off reads is longer than ' .. ARGV[4] .. ' bytes')
end
for name in list:gmatch('[^\n]+') do
  if name ~= ARGV[1] then names[#names + 1] = name end
end
if ARGV[2] == '0' then names[#names + 1] = ARGV[1] end
table.sort(names)
list = table.concat(names, '\n')
-- Nobody would read it.
if #list > tonumber(ARGV[4]) then
  return redis.error_reply('ERR the list of switched-off reads would be longer than ' .. ARGV[4] .. ' bytes')
end
-- An empty list is kept: where there is none, it was lost, and who knows it writes it back.
redis.call('SET', KEYS[1], list)
return list
