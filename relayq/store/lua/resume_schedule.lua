-- resume_schedule: have a paused schedule come again, at the next instant from now on: what came while
-- it was paused isn't missed.
--
-- args: offset name upcoming due who
-- Returns  "resumed" | "already" | "gone"
call("ZREM", K.hosts, "")
local key = K.schedule .. name
if call("EXISTS", key) == 0 then return "gone" end
if call("HDEL", key, "paused", "paused_by") == 0 then return "already" end
call("HDEL", key, "next", "due")
if upcoming ~= "" then call("HSET", key, "next", upcoming, "due", due) end
call("HINCRBY", key, "turn", 1)
local is_refused = call("HEXISTS", key, "refused") == 1
call("ZADD", K.schedules, (is_refused or due == "") and "+inf" or due, name)
event("resumed", "l", name, "w", who)
return "resumed"
