local names, list = {}, redis.call('GET', KEYS[1]) or ''
for name in list:gmatch('[^\n]+') do
  if name ~= ARGV[1] then names[#names + 1] = name end
end
if ARGV[2] == '0' then names[#names + 1] = ARGV[1] end
table.sort(names)
list = table.concat(names, '\n')
if list == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], list) end
return list
