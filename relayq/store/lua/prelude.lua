-- prelude: what every script shares. Loaded before each of them, after the key table `K`.
-- `offset` is 0 outside tests; now is Redis' own clock, so all leases are on one clock.

local call = redis.call

local function now()
  local t = call("TIME")
  return tonumber(t[1]) + tonumber(t[2]) / 1e6 + tonumber(offset)
end

-- Lua prints numbers with 14 digits; instants need more.
local function instant(x)
  return string.format("%.6f", x)
end

-- Higher priority first, then first come; the nth of one call after the one before it.
local function position(priority, since, nth)
  return string.format("%.0f", (10 - tonumber(priority)) * 9e14 + (tonumber(since) - 1735689600) * 1e6 + (nth or 0))
end

local function nudge(id, kind, queue)
  local message = template:gsub("@(%a+)", { id = id, kind = kind, queue = queue })
  call("LPUSH", K.nudges .. queue, message)
end

-- Note what happened in the audit trail, in pairs: j job, h host, a attempt, w who asked, s state,
-- r reason, x exit code, g signal, q queue, p priority, d due, t seconds, n count, k install.
-- Its instant is the entry's id. 10,000 entries are 1.2 MB.
local function event(what, ...)
  call("XADD", K.events, "MAXLEN", "~", 10000, "*", "e", what, ...)
end

-- Move the job's index entry and its state.
local function move(id, from, to, score)
  call("ZREM", K.state .. from, id)
  call("ZADD", K.state .. to, score, id)
  call("HSET", K.job .. id, "state", to)
end

-- Leave a running or lost attempt behind.
local function leave_host(id, host)
  if host then call("SREM", K.active .. host, id) end
  call("HDEL", K.job .. id, "phase")
end

-- Put a job on its queue, at the place that its first queueing gave it. The rest is for the event.
local function enqueue(id, from, at, what, ...)
  local r = call("HMGET", K.job .. id, "kind", "queue", "priority", "queued")
  local since = r[4]
  if not since then
    since = instant(at)
    call("HSET", K.job .. id, "queued", since)
  end
  call("HDEL", K.job .. id, "due", "waits", "reason", "started", "finished")
  move(id, from, "queued", instant(at))
  call("ZADD", K.queue .. r[2], position(r[3], since), id)
  nudge(id, r[1], r[2])
  event(what, "j", id, ...)
end

-- Wake those who wait for the job; `outcome` saves them a call when it is small.
local function announce(id, state, outcome)
  if outcome and #outcome <= 65536 then
    call("XADD", K.done .. id, "*", "state", state, "outcome", outcome)
  else
    call("XADD", K.done .. id, "*", "state", state)
  end
  call("EXPIRE", K.done .. id, 60)
end

local function is_final(state)
  return state == "succeeded" or state == "failed" or state == "cancelled"
end

-- The job that has this unique key and isn't ended. By its record: a key alone proves nothing.
local function holder_of(key)
  local id = call("GET", K.unique .. key)
  if not id then return nil end
  local r = call("HMGET", K.job .. id, "state", "unique")
  if r[1] and r[2] == key and not is_final(r[1]) then return id, r[1] end
end

local function let_go(id, key)
  if key and call("GET", K.unique .. key) == id then call("DEL", K.unique .. key) end
end

-- Give a job its final or parked state; from there, what comes after it.
local function settle(id, from, to, reason, at, outcome)
  move(id, from, to, instant(at))
  local r = call("HMGET", K.job .. id, "unique", "host", "attempt", "exit", "signal")
  if is_final(to) then let_go(id, r[1]) end
  call("HSET", K.job .. id, "reason", reason, "finished", instant(at))
  announce(id, to, outcome)
  local said = { "j", id, "s", to, "r", reason }
  local function add(key, value)
    if value then table.insert(said, key); table.insert(said, value) end
  end
  if from == "running" or from == "lost" then
    add("h", r[2]); add("a", r[3]); add("x", r[4]); add("g", r[5])
  end
  event(is_final(to) and "ended" or "parked", unpack(said))
end

-- Release or fail the jobs that come after `id`. A failure goes down the whole graph.
local function settle_dependents(id, state, at)
  if state == "needs_human" then return end
  local ended = { { id, state } }
  while #ended > 0 do
    local parent = table.remove(ended)
    local children = call("SMEMBERS", K.dependents .. parent[1])
    for _, child in ipairs(children) do
      if call("HGET", K.job .. child, "state") == "waiting" then
        if parent[2] ~= "succeeded" then
          settle(child, "waiting", "failed", "upstream", at)
          table.insert(ended, { child, "failed" })
        elseif call("HINCRBY", K.job .. child, "waits", -1) <= 0 then
          local due = call("HGET", K.job .. child, "due")
          if due and tonumber(due) > at then
            move(child, "waiting", "scheduled", due)
          else
            enqueue(child, "waiting", at, "ready")
          end
        end
      end
    end
    if parent[2] == "succeeded" then call("DEL", K.dependents .. parent[1]) end
  end
end

-- The verdict on an attempt that is gone or counts as gone. `absent` is true when its host
-- itself says that nothing of it is left; else a person's retry must wait for that host.
local function verdict(id, from, at, crash_limit, absent)
  local r = call("HMGET", K.job .. id, "cancel", "phase", "unstarted", "losses", "on_lost", "host", "attempt", "uid", "boot")
  local host = r[6]
  local started = r[2] == "started"
  local on_lost = r[5] or "retry"
  if started and not absent and on_lost ~= "retry" then
    call("HSET", K.job .. id, "orphan", host .. " " .. r[9] .. " " .. r[7] .. " " .. r[8])
  end
  if r[1] then
    leave_host(id, host)
    settle(id, from, "cancelled", "user", at)
    settle_dependents(id, "cancelled", at)
    return "cancelled"
  end
  if not started and tonumber(r[3] or 0) < 5 then
    leave_host(id, host)
    call("HINCRBY", K.job .. id, "unstarted", 1)
    enqueue(id, from, at, "judged", "s", "queued", "r", "unstarted", "h", host or "", "a", r[7] or "")
    return "queued"
  end
  local losses = call("HINCRBY", K.job .. id, "losses", 1)
  leave_host(id, host)
  if on_lost == "retry" and losses < tonumber(crash_limit) then
    enqueue(id, from, at, "judged", "s", "queued", "r", "lost", "h", host or "", "a", r[7] or "")
    return "queued"
  end
  local to = on_lost == "ask" and "needs_human" or "failed"
  settle(id, from, to, "lost", at)
  settle_dependents(id, to, at)
  return to
end

-- "current" when the token (attempt, uid) holds the lease, else why not; and the record's state.
local function check(id, attempt, uid)
  local r = call("HMGET", K.job .. id, "state", "attempt", "uid")
  if not r[1] then return "gone" end
  if r[2] ~= attempt or r[3] ~= uid then return "stale", r[1] end
  if r[1] ~= "running" and r[1] ~= "lost" then return "ended", r[1] end
  return "current", r[1]
end

local function forget(id)
  local r = call("HMGET", K.job .. id, "state", "host", "name", "group", "unique")
  if r[1] then call("ZREM", K.state .. r[1], id) end
  if r[2] then call("ZREM", K.by_host .. r[2], id) end
  if r[3] then call("ZREM", K.name .. r[3], id) end
  if r[4] then call("ZREM", K.group .. r[4], id) end
  let_go(id, r[5])
  call("ZREM", K.ids, id)
  call("DEL", K.job .. id, K.spec .. id, K.outcome .. id, K.late .. id, K.log .. id, K.done .. id,
    K.dependents .. id, K.followers .. id)
end
