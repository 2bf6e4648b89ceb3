-- reopen: have jobs start on a paused account again, for a person; hosts that are up look at once.
--
-- args: offset account who
-- Returns  "reopened" | "open"
local key = K.account .. account
local at = now()
local ends = call("HGET", key, "ends")
if call("HDEL", key, "ends", "reason", "probe", "next", "room", "eased") == 0 or not ends or tonumber(ends) <= at then return "open" end
event("reopened", "c", account, "w", who)
wake("", at)
return "reopened"
