-- finish: end the attempt that holds the lease, and the job with it or until its retry is due.
-- A worker that lost its job can't overwrite the successor: its outcome is kept beside the record.
-- A cancel that came first wins, whatever the outcome says. A repeated call (a lost reply) is
-- answered "already". What comes after the job is released here, so that no crash can part them.
--
-- `counts` names the counter that the attempt adds to unless it was cancelled: failures, losses, or
-- none. `further` is "" or JSON, all of it optional: due_at (an instant, instead of `due`); queue (on
-- which it goes on), wide and overflow (the queue after so many seconds); question and choices; pause
-- (account, ends or seconds, reason, slows), also of a stale attempt, since it is no news of the job; usage
-- (cost in millionths, tokens); session.
--
-- uses: ends
-- args: offset template id attempt uid state reason exit signal due counts outcome further
-- Returns  the state that the job now has | "already" | "stale" | "gone"
call("ZREM", K.hosts, "")
local word, from = check(id, attempt, uid)
local more = further ~= "" and cjson.decode(further) or {}
if word ~= "current" and call("HGET", K.job .. id, "ended_by") == uid then return "already" end
if more.pause then
  local at = now()
  pause_account(more.pause.account, more.pause.ends or at + more.pause.seconds, more.pause.reason, "", at, more.pause.slows)
end
if word == "gone" then return "gone" end
if word ~= "current" then
  if call("GET", K.late .. id) ~= outcome then
    call("SET", K.late .. id, outcome)
    event("late", "j", id, "a", attempt, "s", state, "r", reason)
  end
  return "stale"
end
local at = now()
local r = call("HMGET", K.job .. id, "cancel", "host", "halted")
local to = r[1] and "cancelled" or state
if r[1] then reason = r[3] and "halted" or "user" end
leave_host(id, r[2])
local t = call("HMGET", K.job .. id, "kind", "queued", "claimed", "started", "account", "with")
local counted = { [to == "scheduled" and "retried" or to] = 1 }
if tonumber(t[4]) then counted.timed = 1; counted.run_ms = math.max(0, at - tonumber(t[4])) * 1000 end
if tonumber(t[2]) and tonumber(t[3]) and tonumber(attempt) == 1 then
  counted.waited = 1
  counted.wait_ms = math.max(0, tonumber(t[3]) - tonumber(t[2])) * 1000
end
local account, cost = t[5], 0
if more.usage then
  cost = more.usage.cost
  counted.cost_micro, counted.tokens_in, counted.tokens_out = cost, more.usage.input, more.usage.output
  for _, one in ipairs({ "cost_micro", "tokens_in", "tokens_out" }) do
    if more.usage.has_cost or one ~= "cost_micro" then count_up(K.job .. id, one, counted[one]) end
  end
end
if account and more.usage then
  local key, today = K.account .. account, tostring(math.floor(at / 86400))
  if call("HGET", key, "day") ~= today then call("HSET", key, "day", today, "spent", 0, "tokens", 0) end
  count_up(key, "spent", cost)
  count_up(key, "tokens", more.usage.input + more.usage.output)
  keep_account(account, at, tonumber(call("HGET", key, "ends")) or at)
end
if account and to == "succeeded" then call("HDEL", K.account .. account, "probe") end
if more.session then note_session(more.session, more.session.turns, more.session.cost, at) end
if reason ~= "skipped" then tally(at, r[2] or "-", counted_as(t[1], account), counted) end
call("HSET", K.job .. id, "ended_by", uid)
if exit ~= "" then call("HSET", K.job .. id, "exit", exit) end
if signal ~= "" then call("HSET", K.job .. id, "signal", signal) end
call("SET", K.outcome .. id, outcome)
if tonumber(attempt) > 1 then call("DEL", K.answer .. id) end
-- Beside another job it goes where that is.
if more.queue and not t[6] then
  call("HDEL", K.job .. id, "wide", "overflow", "widens")
  call("ZREM", K.overflow, id)
  call("HSET", K.job .. id, "queue", more.queue)
  if more.wide then call("HSET", K.job .. id, "wide", more.wide, "overflow", more.overflow) end
end
if counts ~= "" and to ~= "cancelled" then count_up(K.job .. id, counts, 1) end
if to == "scheduled" then
  local due_at = instant(more.due_at or at + tonumber(due))
  move(id, from, "scheduled", due_at)
  call("HSET", K.job .. id, "due", due_at, "reason", reason)
  event("retrying", "j", id, "h", r[2] or "", "a", attempt, "r", reason, "d", due_at, "x", exit, "g", signal)
  return to
end
if to == "needs_human" and more.question then
  call("HSET", K.job .. id, "question", more.question, "choices", more.choices, "asked_at", instant(at))
end
conclude(id, from, to, reason, at, outcome)
return to
