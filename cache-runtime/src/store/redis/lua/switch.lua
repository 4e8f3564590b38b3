-- Where the list was lost, it is what the caller knew of it.
local names, list = {}, redis.call('GET', KEYS[1]) or ARGV[3]
for name in list:gmatch('[^\n]+') do
  if name ~= ARGV[1] then names[#names + 1] = name end
end
if ARGV[2] == '0' then names[#names + 1] = ARGV[1] end
table.sort(names)
list = table.concat(names, '\n')
-- An empty list is kept: where there is none, it was lost, and who knows it writes it back.
redis.call('SET', KEYS[1], list)
return list
