-- drain: have a host take nothing new, or with an empty `reason` and `undo` take work again.
-- The flag outlives restarts of the host and of its worker; the claim obeys it.
--
-- args: offset host undo reason who
-- Returns  "ok" | "already" | "unknown"
call("ZREM", K.hosts, "")
local key = K.host .. host
if call("HEXISTS", key, "install") == 0 then return "unknown" end
local is_drained = call("HEXISTS", key, "drained") == 1
if undo ~= "" then
  if not is_drained then return "already" end
  call("HDEL", key, "drained", "drained_reason")
  tell(host, "wake")
  event("undrained", "h", host, "w", who)
  return "ok"
end
-- A second drain may give another reason; the instant stays.
call("HSETNX", key, "drained", instant(now()))
if reason ~= "" or not is_drained then call("HSET", key, "drained_reason", reason) end
if is_drained then return "already" end
event("drained", "h", host, "r", reason, "w", who)
return "ok"
