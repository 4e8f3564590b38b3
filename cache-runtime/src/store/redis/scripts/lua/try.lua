local refusals = {}
local function try(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    refusals[#refusals + 1] = string.lower(command)
    refusals[#refusals + 1] = answer.err
  end
  return answer
end

try('TIME')
try('GET', KEYS[1])
try('GETRANGE', KEYS[1], 0, 0)
try('PTTL', KEYS[1])
if try('EXISTS', KEYS[1]) == 1 then return refusals end
try('SET', KEYS[1], '', 'XX', 'PX', 1)
try('SETRANGE', KEYS[1], 0, '')
try('PEXPIRE', KEYS[1], 1)
try('DEL', KEYS[1])
try('UNLINK', KEYS[1])
return refusals
