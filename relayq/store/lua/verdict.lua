-- verdict: what becomes of a job whose attempt is gone.
--
-- uses: ends

-- The verdict on an attempt that is gone or counts as gone. `absent` is true when its host
-- itself says that nothing of it is left; else a person's retry must wait for that host.
local function verdict(id, from, at, crash_limit, absent)
  local r = call("HMGET", K.job .. id, "cancel", "phase", "unstarted", "losses", "on_lost", "host", "attempt", "uid", "boot",
    "kind", "account")
  local host = r[6]
  local started = r[2] == "started"
  local on_lost = r[5] or "retry"
  if started and not absent and on_lost ~= "retry" then
    call("HSET", K.job .. id, "orphan", (host or "-") .. " " .. (r[9] or "/") .. " " .. (r[7] or "0") .. " " .. (r[8] or "-"))
  end
  if r[1] then
    leave_host(id, host)
    conclude(id, from, "cancelled", reason_of_cancel(id), at)
    return "cancelled"
  end
  if not started and (tonumber(r[3]) or 0) < 5 then
    leave_host(id, host)
    count_up(K.job .. id, "unstarted", 1)
    enqueue(id, from, at, "judged", "s", "queued", "r", "unstarted", "h", host or "", "a", r[7] or "")
    return "queued"
  end
  local losses = count_up(K.job .. id, "losses", 1)
  tally(at, host or "-", counted_as(r[10], r[11]), { lost = 1 })
  leave_host(id, host)
  if on_lost == "retry" and losses < tonumber(crash_limit) then
    enqueue(id, from, at, "judged", "s", "queued", "r", "lost", "h", host or "", "a", r[7] or "")
    return "queued"
  end
  local to = on_lost == "ask" and "needs_human" or "failed"
  conclude(id, from, to, "lost", at)
  return to
end
