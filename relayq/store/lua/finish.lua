-- finish: end the attempt that holds the lease, and the job with it or until its retry is due.
-- A worker that lost its job can't overwrite the successor: its outcome is kept beside the record.
-- A cancel that came first wins, whatever the outcome says. A repeated call (a lost reply) is
-- answered "already". What comes after the job is released here, so that no crash can part them.
--
-- `counts` names the counter that the attempt adds to unless it was cancelled: failures, losses, or
-- none.
--
-- args: offset template id attempt uid state reason exit signal due counts outcome
-- Returns  the state that the job now has | "already" | "stale" | "gone"
call("ZREM", K.hosts, "")
local word, from = check(id, attempt, uid)
if word == "gone" then return "gone" end
if word ~= "current" then
  if call("HGET", K.job .. id, "ended_by") == uid then return "already" end
  if call("GET", K.late .. id) ~= outcome then
    call("SET", K.late .. id, outcome)
    event("late", "j", id, "a", attempt, "s", state, "r", reason)
  end
  return "stale"
end
local at = now()
local r = call("HMGET", K.job .. id, "cancel", "host")
local to = r[1] and "cancelled" or state
if r[1] and reason ~= "user" then reason = "user" end
leave_host(id, r[2])
local t = call("HMGET", K.job .. id, "kind", "queued", "claimed", "started")
local counted = { [to == "scheduled" and "retried" or to] = 1 }
if t[4] then counted.timed = 1; counted.run_ms = math.max(0, at - tonumber(t[4])) * 1000 end
if t[2] and t[3] and tonumber(attempt) == 1 then
  counted.waited = 1
  counted.wait_ms = math.max(0, tonumber(t[3]) - tonumber(t[2])) * 1000
end
tally(at, r[2] or "-", t[1], counted)
call("HSET", K.job .. id, "ended_by", uid)
if exit ~= "" then call("HSET", K.job .. id, "exit", exit) end
if signal ~= "" then call("HSET", K.job .. id, "signal", signal) end
call("SET", K.outcome .. id, outcome)
if counts ~= "" and to ~= "cancelled" then call("HINCRBY", K.job .. id, counts, 1) end
if to == "scheduled" then
  move(id, from, "scheduled", instant(at + tonumber(due)))
  call("HSET", K.job .. id, "due", instant(at + tonumber(due)), "reason", reason)
  event("retrying", "j", id, "h", r[2] or "", "a", attempt, "r", reason, "d", instant(at + tonumber(due)), "x", exit, "g", signal)
  return to
end
settle(id, from, to, reason, at, outcome)
settle_dependents(id, to, at)
return to
