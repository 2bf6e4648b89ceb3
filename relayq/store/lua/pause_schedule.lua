-- pause_schedule: have nothing come of a schedule. A worker that is about to submit its jobs finds
-- that it has changed, so nothing starts after this was answered.
--
-- args: offset name who
-- Returns  "paused" | "already" | "gone"
call("ZREM", K.hosts, "")
local key = K.schedule .. name
if call("EXISTS", key) == 0 then return "gone" end
if call("HSETNX", key, "paused", instant(now())) == 0 then return "already" end
call("HSET", key, "paused_by", who)
call("HINCRBY", key, "turn", 1)
call("ZADD", K.schedules, "+inf", name)
event("paused", "l", name, "w", who)
return "paused"
