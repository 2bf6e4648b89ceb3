-- move: send a job that hasn't started to another queue, or give it another priority.
-- It keeps the place that its first queueing gave it, and with a queue of "" the queue. The spec is signed anew by who asks, from the
-- one that was read: when that isn't the stored one any more, nothing changes.
--
-- args: offset template id queue priority before spec who
-- Returns  "moved" | "changed" | "unfit", state | "gone"
local r = call("HMGET", K.job .. id, "state", "queue", "priority", "kind", "with")
local state = r[1]
if not state then return { "gone" } end
if state ~= "queued" and state ~= "scheduled" and state ~= "waiting" then return { "unfit", state } end
if call("GET", K.spec .. id) ~= before then return { "changed" } end
-- First a write that Redis refuses when it is out of memory: then nothing is half moved.
call("SET", K.spec .. id, spec)
if queue == "" then
  queue = r[2]
else
  if r[5] then part(id, r[5]) end
  call("HDEL", K.job .. id, "wide", "overflow", "widens")
  call("ZREM", K.overflow, id)
end
call("HSET", K.job .. id, "queue", queue, "priority", priority)
if state == "queued" then
  local place = call("ZSCORE", K.queue .. r[2], id)
  place = place and tonumber(place) + (tonumber(r[3]) - tonumber(priority)) * 9e14 or position(priority, now())
  call("ZREM", K.queue .. r[2], id)
  call("ZADD", K.queue .. queue, string.format("%.0f", place), id)
  open_queue(queue, now())
  nudge(id, r[4], queue)
end
event("moved", "j", id, "q", queue, "p", priority, "w", who)
return { "moved" }
