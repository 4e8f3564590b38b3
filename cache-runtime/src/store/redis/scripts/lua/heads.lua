local heads = {}
for i, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, ARGV[1] - 1)
  if type(head) ~= 'string' then
    head = head.err:find('WRONGTYPE', 1, true) and '!' or ''
  elseif head == '' and redis.call('EXISTS', key) == 1 then
    head = '!'
  end
  heads[i] = head
end
return heads
