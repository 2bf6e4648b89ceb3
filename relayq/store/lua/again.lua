-- again: what is to be counted anew when jobs run again.
--
-- uses: stands

-- Count for a halt anew, of those of its members that have ended: some are to run again.
local function recount(name)
  local key = K.halt .. name
  local h = call("HMGET", key, "counted", "limit")
  if not h[1] then return end
  local count = 0
  for _, id in ipairs(call("SMEMBERS", K.halted .. name)) do
    local r = call("HMGET", K.job .. id, "state", "reason", "lenient")
    local as = r[1] and is_final(r[1]) and stands(r[1], r[2], r[3])
    if as and is_counted(h[1], { state = r[1], reason = r[2], as = as }) then count = count + 1 end
  end
  call("HSET", key, "count", count)
  if count < tonumber(h[2]) then call("HDEL", key, "fired") end
end
