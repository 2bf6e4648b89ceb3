-- release: give a claimed job back unstarted, or handed back by its owner; it isn't counted.
-- Nothing of the attempt may be left when this is called.
--
-- uses: ends
-- args: offset template id attempt uid
-- Returns  "queued" | "cancelled" | "stale" | "gone"
call("ZREM", K.hosts, "")
local word, from = check(id, attempt, uid)
if word == "gone" then return "gone" end
if word ~= "current" then return "stale" end
local at = now()
local r = call("HMGET", K.job .. id, "cancel", "host", "phase")
leave_host(id, r[2])
if r[1] then
  conclude(id, from, "cancelled", reason_of_cancel(id), at)
  return "cancelled"
end
enqueue(id, from, at, r[3] == "started" and "handed_back" or "released", "h", r[2] or "", "a", attempt)
return "queued"
