local t, before, removed = now(), tonumber(ARGV[2]), 0
local function remove(key)
  local there = header(key)
  if there then
    if (ARGV[1] == 'all' or kind(there) == 'd') and (not before or stored(there) < before or stored(there) > t) then
      redis.call('UNLINK', key)
      if has_content(there) then removed = removed + 1 end
    end
  elseif is_intent(key) then
    -- A write that is under way is not over because somebody tidies up.
  elseif ARGV[1] == 'all' and not before then
    redis.call('UNLINK', key)
    removed = removed + 1
  end
end

for _, key in ipairs(KEYS) do
  -- First, since without a namespace most keys may be those of others.
  if is_ours(key) then remove(key) end
end
return removed
