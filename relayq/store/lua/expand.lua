-- expand: the attempt that holds the lease has made other jobs of its job: it waits until these have
-- ended, however, and is queued again then, to collect what they did. A cancel that came first ends it,
-- and them. A repeated call (a lost reply) is answered "already".
--
-- uses: ends parents
-- args: offset template id attempt uid
-- rest: ids of the jobs that it became
-- Returns  "waiting" | "queued" (they have ended) | "cancelled" | "already" | "no_child" | "stale" | "gone"
local word, from = check(id, attempt, uid)
if word == "gone" then return "gone" end
local r = call("HMGET", K.job .. id, "cancel", "host", "fanned", "ended_by")
if word ~= "current" then return r[4] == uid and "already" or "stale" end
local children = {}
for i = rest, #ARGV do
  if call("EXISTS", K.job .. ARGV[i]) == 0 then return "no_child" end
  table.insert(children, ARGV[i])
end
local at = now()
call("HSET", K.job .. id, "fanned", table.concat(children, " "), "ended_by", uid)
leave_host(id, r[2])
if r[1] then
  conclude(id, from, "cancelled", reason_of_cancel(id), at)
  return "cancelled"
end
event("expanded", "j", id, "h", r[2] or "", "a", attempt, "n", #children + 1)
local found = weigh(id, "", table.concat(children, " "), nil, "+")
if not found.edges[1] then
  enqueue(id, from, at, "ready")
  return "queued"
end
move(id, from, "waiting", instant(at))
call("HSET", K.job .. id, "waits", #found.edges)
for _, edge in ipairs(found.edges) do call("SADD", K.dependents .. edge[1], edge[2]) end
return "waiting"
