local t, entries, ttl, stored, any = now(), tonumber(ARGV[1]), ARGV[2], {}, false

local function fill(key, own, header_of_it, payload, fresh_for, stale_for)
  local there = header(key)
  if not there or token(there) ~= own then return 0 end
  -- A newer value was loaded, and is not to be stored.
  if not has_content(header_of_it) then
    redis.call('DEL', key)
    return 1
  end
  local fresh, stale = t + fresh_for, t + fresh_for + stale_for
  redis.call('SET', key, with_times(header_of_it, t, fresh, stale) .. payload, 'PX', stale - t)
  any = true
  return 1
end

for i = 1, entries do
  local at = 5 * i - 2
  stored[i] = fill(KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
end
for i = entries + 1, any and #KEYS or 0 do
  local rest = redis.call('PTTL', KEYS[i])
  if rest >= 0 and rest < ttl / 2 then redis.call('PEXPIRE', KEYS[i], ttl) end
end
return stored
