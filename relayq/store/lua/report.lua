-- report: note which attempts of a host stand still and why, and answer with what people asked for.
-- Comes with every beat. A pause that is over, or makes no sense, is taken out here, so that the host may claim again.
--
-- args: offset host install
-- rest: id attempt uid why   (per running attempt; "" for one that runs)
-- Returns  the pauses of the host, the fleet and each attempt, as JSON with the seconds `left`; "" for none
call("ZREM", K.hosts, "")
if call("HGET", K.host .. host, "install") ~= install then return {} end
local at = now()

local function wish_of(key, field)
  local raw = call("HGET", key, field)
  if not raw then return "" end
  local is_read, said = spare(function()
    local wish = cjson.decode(raw)
    if wish.ends then
      wish.left = tonumber(wish.ends) - at
      if wish.left <= 0 then return "" end
    end
    return cjson.encode(wish)
  end)
  if not is_read or said == "" then
    call("HDEL", key, field)
    return ""
  end
  return said
end

local answer = { wish_of(K.host .. host, "paused"), wish_of(K.meta, "paused") }
for i = rest, #ARGV, 4 do
  local id, attempt, why = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  if check(id, attempt, ARGV[i + 2]) ~= "current" then
    table.insert(answer, "")
  else
    local before = call("HGET", K.job .. id, "paused")
    if why == "" and before then
      call("HDEL", K.job .. id, "paused", "paused_at")
      event("thawed", "j", id, "h", host, "a", attempt)
    elseif why ~= "" and why ~= before then
      call("HSET", K.job .. id, "paused", why)
      if not before then
        call("HSET", K.job .. id, "paused_at", instant(at))
        event("frozen", "j", id, "h", host, "a", attempt, "r", why)
      end
    end
    table.insert(answer, wish_of(K.job .. id, "pause"))
  end
end
return answer
