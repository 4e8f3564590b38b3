local t, length = now(), ARGV[1]

local function lease(key, mode, seen, wanted)
  local there = header(key)
  if there == false then return is_intent(key) and 'intended' or 'foreign' end
  if there then
    local ends = deadline(there)
    local expired = token(there) ~= NO_TOKEN and (ends < t or is_beyond(ends, t, tonumber(length)))
    local gives_way = expired or mode == 'anything' or ((mode == 'entry' or mode == 'past') and same(there, seen))
    if not gives_way then return there end
    local keeps = (mode == 'past' or mode == 'leased') and there
    if mode == 'anything' then
      there = expired_at(there, t)
      keeps = t < stale(there)
    end
    if keeps and has_content(there) and same_value(there, wanted) then
      local rest = redis.call('PTTL', key)
      redis.call('SETRANGE', key, 0, with_deadline(with_token(there, token(wanted)), t + length))
      if rest < tonumber(length) then redis.call('PEXPIRE', key, length) end
      return ''
    end
  end
  redis.call('SET', key, with_deadline(with_times(wanted, t, 0, 0), t + length), 'PX', length)
  return ''
end

local replies = {}
for i, key in ipairs(KEYS) do replies[i] = lease(key, ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]) end
return replies
