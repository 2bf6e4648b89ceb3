-- keep_schedule: store what recurs, as it was signed. What was counted of one that it replaces stays,
-- and so do the jobs of that which may still run: they count for the overlap.
--
-- args: offset key_id name uid signed upcoming due who replace paused
-- Returns  "added" | "replaced" | "exists" | "wrong_key"
local fleets = call("HGET", K.meta, "key_id")
if fleets and fleets ~= key_id then return "wrong_key" end
local key = K.schedule .. name
local is_known = call("EXISTS", key) == 1
if is_known and replace == "" then return "exists" end
-- The first write is one that Redis refuses when it is out of memory.
call("HSET", key, "signed", signed, "uid", uid)
call("HINCRBY", key, "turn", 1)
call("HDEL", key, "refused", "trouble", "next", "due", "seen", "paused", "paused_by")
call("HSETNX", key, "created", instant(now()))
if upcoming ~= "" then call("HSET", key, "next", upcoming, "due", due) end
if paused ~= "" then
  call("HSET", key, "paused", instant(now()), "paused_by", who)
  due = ""
end
call("ZADD", K.schedules, due == "" and "+inf" or due, name)
event(is_known and "replaced" or "added", "l", name, "w", who)
return is_known and "replaced" or "added"
