-- As `Generation::parse` reads it: a nonce, then nothing or intents, whose deadlines it can count.
local function is_generation(value)
  local function leave_out(ends) return #ends < 20 and '' or nil end
  local rest = value:sub(33):gsub(' %x+@(%d+)', leave_out)
  return #value >= 32 and not value:sub(1, 32):find('[^0-9a-f]') and rest == ''
end

local values = {}
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'NX', 'PX', ARGV[1])
  local value = whole(key)
  if not value or not is_generation(value) then
    -- Nothing depends on it, whatever its type is.
    value = ARGV[i + 1]
    redis.call('SET', key, value, 'PX', ARGV[1])
  end
  values[i] = value
end
return values
