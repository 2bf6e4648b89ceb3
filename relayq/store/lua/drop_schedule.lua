-- drop_schedule: delete a schedule. A worker that is about to submit its jobs finds it gone.
--
-- args: offset name who
-- Returns  "dropped" | "gone"
if call("DEL", K.schedule .. name) == 0 then return "gone" end
call("ZREM", K.schedules, name)
event("removed", "l", name, "w", who)
return "dropped"
