-- cancel: end a job for its owner. What isn't running is cancelled at once; a running one is told
-- through its record (kept until its host obeys) and through its host's control list (at once).
--
-- args: offset id who
-- Returns  "cancelled" | "asked", host | the final state that it already has | "gone"
local r = call("HMGET", K.job .. id, "state", "host", "queue")
local state = r[1]
if not state then return { "gone" } end
if is_final(state) then return { state } end
call("ZREM", K.queue .. r[3], id)
local at = now()
if state == "running" or state == "lost" then
  if call("HSETNX", K.job .. id, "cancel", instant(at)) == 1 then
    event("cancelled", "j", id, "h", r[2], "w", who)
  end
  call("RPUSH", K.control .. r[2], cjson.encode({ op = "cancel", job = id }))
  call("LTRIM", K.control .. r[2], -1000, -1)
  call("EXPIRE", K.control .. r[2], 120)
  return { "asked", r[2] }
end
if state == "needs_human" then close_question(id) end
event("cancelled", "j", id, "w", who)
settle(id, state, "cancelled", "user", at)
settle_dependents(id, "cancelled", at)
return { "cancelled" }
