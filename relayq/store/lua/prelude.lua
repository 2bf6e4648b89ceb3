-- prelude: what every script shares. Loaded before each of them, after the key table `K`; those that end
-- jobs, or know what comes after one, say `-- uses: ends` and get that file as well.
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

-- Do something for one record of several. False if it allows nothing, whoever wrote it so: that
-- must not hold up what is done for the others. What Redis refuses of all of them is raised.
local function spare(act, ...)
  local is_done, why = pcall(act, ...)
  if is_done then return true, why end
  local said = type(why) == "table" and why.err or tostring(why)
  for _, word in ipairs({ "OOM", "MISCONF", "NOREPLICAS", "READONLY", "NOPERM", "permission", "killed" }) do
    if said:find(word, 1, true) then error(why) end
  end
  return false
end

-- Whether this key, if it is there, is a hash.
local function is_hash(key)
  return type(redis.pcall("HGET", key, "state")) ~= "table"
end

-- Add to a count; one that is no number begins anew.
local function count_up(key, field, n)
  local sum = redis.pcall("HINCRBY", key, field, n)
  if type(sum) == "number" then return sum end
  call("HSET", key, field, n)
  return n
end

local function is_of_needs(queue) return queue:sub(1, 6) == "needs." end

-- Send a host's worker a message of one word: it is taken at once, or not at all.
local function tell(host, op)
  call("RPUSH", K.control .. host, cjson.encode({ op = op }))
  call("LTRIM", K.control .. host, -1000, -1)
  call("EXPIRE", K.control .. host, 120)
end

-- Have the hosts that are up and have a free slot claim; each knows for itself what it serves. One
-- that is busy claims anyway when it is done, and learns of new queues then. Once a script: a queue
-- of 1,000 jobs that one parent releases is one reason to look.
local woken = {}
local function wake(queue, at)
  if woken[queue] then return end
  woken[queue] = true
  local message = cjson.encode({ op = "wake", queue = queue })
  local function ring(host)
    local r = call("HMGET", K.host .. host, "slots", "stopped", "drained")
    if not r[2] and not r[3] and call("SCARD", K.active .. host) < tonumber(r[1] or 0) then
      if call("RPUSH", K.control .. host, message) > 1000 then call("LTRIM", K.control .. host, -1000, -1) end
      call("EXPIRE", K.control .. host, 120)
    end
  end
  for _, host in ipairs(call("ZREVRANGEBYSCORE", K.hosts, "+inf", instant(at - 120), "LIMIT", 0, 200)) do
    spare(ring, host)
  end
end

-- Enter a queue of needs in the registry. A new one is heard of by every worker's next claim.
local function open_queue(queue, at)
  if is_of_needs(queue) and call("ZADD", K.queues, instant(at), queue) == 1 then
    call("HINCRBY", K.meta, "queues", 1)
  end
end

-- A queue of needs has no list of nudges that a consumer would have to be told of; and who cancels has no
-- message to nudge with.
local function nudge(id, kind, queue)
  if queue:sub(1, 5) == "with." then return end
  if is_of_needs(queue) or not template then return wake(queue, now()) end
  local message = template:gsub("@(%a+)", { id = id, kind = kind, queue = queue })
  call("LPUSH", K.nudges .. queue, message)
end

-- Note what happened in the audit trail, in pairs: j job, h host, a attempt, w who asked, s state,
-- r reason, x exit code, g signal, q queue, p priority, d due, t seconds, n count, k install,
-- c account of an agent, l schedule.
-- Its instant is the entry's id. 10,000 entries are 1.2 MB.
local function event(what, ...)
  call("XADD", K.events, "MAXLEN", "~", 10000, "*", "e", what, ...)
end

-- Count for `stats`: days by host and kind for 400 days, hours by host for 49 hours.
local function tally(at, host, kind, counts)
  local day, hour = K.stats .. "d" .. math.floor(at / 86400), K.stats .. "h" .. math.floor(at / 3600)
  for what, n in pairs(counts) do
    call("HINCRBY", day, host .. " " .. kind .. " " .. what, math.floor(n + 0.5))
    if what == "succeeded" or what == "failed" then call("HINCRBY", hour, host .. " " .. what, n) end
  end
  call("EXPIRE", day, 34560000)
  call("EXPIRE", hour, 176400)
end

-- Move the job's index entry and its state.
local function move(id, from, to, score)
  call("ZREM", K.state .. from, id)
  call("ZADD", K.state .. to, score, id)
  call("HSET", K.job .. id, "state", to)
end

-- What a job asked a person is moot, and so is a reply to it.
local function close_question(id)
  call("ZREM", K.asking, id)
  call("HDEL", K.job .. id, "asks", "question", "choices", "asked_at")
  call("DEL", K.answer .. id)
end

-- What an agent's attempt held besides its slot: its account, and what it asks. Where the account's
-- limit refused a claim, others may now.
local function leave_account(id)
  local r = call("HMGET", K.job .. id, "account", "asks")
  if r[1] then
    call("SREM", K.account_active .. r[1], id)
    if call("HDEL", K.account .. r[1], "full") == 1 then wake("", now()) end
  end
  if r[2] then close_question(id) end
end

-- Note that an account was used or spoken of; one of which nobody hears for 90 days is forgotten.
local function keep_account(account, at, ends)
  local lasts = math.max(7776000, math.ceil((ends or at) - at) + 86400)
  call("EXPIRE", K.account .. account, lasts)
  call("ZADD", K.accounts, instant(at + lasts), account)
  call("ZREMRANGEBYSCORE", K.accounts, "-inf", instant(at))
end

-- How many jobs of an account may run: after it was told to slow down half as many, and one more
-- for every quiet 5 minutes after that. The same as `room` in model/accounts.py.
local function room_of(limit, room, since, at)
  if not room then return limit end
  return math.min(limit, tonumber(room) + math.max(0, math.floor((at - tonumber(since)) / 300)))
end

-- Have nothing start on an account before an instant; a later end that was said before stays.
-- Then one job tries it, alone; of one that `slows` fewer than before follow. What ran beside the
-- first that met a limit meets the same, and halves nothing again. Returns the end.
local function pause_account(account, ends, reason, who, at, slows)
  local r = call("HMGET", K.account .. account, "ends", "limit", "room", "eased")
  local before = tonumber(r[1] or 0)
  if slows and r[2] and before <= at then
    local room = math.max(1, math.floor(room_of(tonumber(r[2]), r[3], r[4], at) / 2))
    call("HSET", K.account .. account, "room", room, "eased", instant(ends))
  end
  if ends <= at or ends <= before then return before end
  call("HSET", K.account .. account, "ends", instant(ends), "reason", reason, "probe", "due")
  keep_account(account, at, ends)
  event("limited", "c", account, "r", reason, "d", instant(ends), "w", who)
  return ends
end

-- When the first choice of a queue's accounts may be used again, if it is paused.
local function paused_until(queue, at)
  local account = queue:match("[.,]account=([^,|]+)")
  local ends = account and tonumber(call("HGET", K.account .. account, "ends") or 0)
  if ends and ends > at then return ends end
end

-- Keep where a session lives, for 30 days; with `turns` and `cost`, what an attempt added to it.
local function note_session(session, turns, cost, at)
  local key, said = K.session .. session.id, {}
  for _, name in ipairs({ "agent", "account", "host", "cwd", "home", "version", "job" }) do
    table.insert(said, name)
    table.insert(said, session[name])
  end
  call("HSET", key, "at", instant(at), unpack(said))
  if turns ~= 0 then call("HINCRBY", key, "turns", turns) end
  if cost ~= 0 then call("HINCRBY", key, "cost_micro", cost) end
  call("EXPIRE", key, 2592000)
  call("ZADD", K.sessions, instant(at), session.id)
  call("ZREMRANGEBYSCORE", K.sessions, "-inf", instant(at - 2592000))
end

-- What `tally` counts a job as: its kind, and of an agent's job the agent.
local function counted_as(kind, account)
  return account and kind .. " " .. account:match("^[^/]*") or kind
end

-- Leave a running or lost attempt behind. Where the fleet's limit refused a claim, others may now.
local function leave_host(id, host)
  if host then call("SREM", K.active .. host, id) end
  leave_account(id)
  call("HDEL", K.job .. id, "phase", "pause", "paused", "paused_at", "progress", "progress_at")
  if call("HDEL", K.meta, "full") == 1 then wake("", now()) end
end

local function is_final(state)
  return state == "succeeded" or state == "failed" or state == "cancelled"
end

-- The queue of a job that is to run on the host of another one: that host's, else one that nobody
-- serves until `with` is claimed; nil where that will never be.
local function queue_beside(with, narrow)
  local r = call("HMGET", K.job .. with, "host", "state")
  if r[1] then return (narrow:gsub("HOST", r[1])) end
  if r[2] and not is_final(r[2]) then return "with." .. with end
end

-- A job's host is no longer that of another one.
local function part(id, with)
  call("SREM", K.companions .. with, id)
  call("HDEL", K.job .. id, "with", "narrow", "wide")
end

-- Put a job on its queue, at the place that its first queueing gave it. The rest is for the event.
local function enqueue(id, from, at, what, ...)
  local r = call("HMGET", K.job .. id, "kind", "queue", "priority", "queued", "with", "narrow", "wide", "overflow")
  local since, queue = r[4], r[2]
  if not since then
    since = instant(at)
    call("HSET", K.job .. id, "queued", since)
  end
  call("HDEL", K.job .. id, "due", "waits", "skips", "fails", "reason", "started", "finished", "question", "choices",
    "asked_at")
  move(id, from, "queued", instant(at))
  if r[5] then
    queue = queue_beside(r[5], r[6])
    if not queue then
      -- Only a person's retry comes here: what waited for that host failed when it became nobody's.
      part(id, r[5])
      queue = r[7]
    end
    call("HSET", K.job .. id, "queue", queue)
  elseif r[8] then
    call("HSET", K.job .. id, "widens", instant(at + tonumber(r[8])))
    call("ZADD", K.overflow, instant(at + tonumber(r[8])), id)
  end
  call("ZADD", K.queue .. queue, position(r[3], since), id)
  open_queue(queue, at)
  nudge(id, r[1], queue)
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

-- What time was to do with a job that waits is moot: it was claimed, or ended.
local function rest_from_time(id, widens, expires)
  if widens then
    call("ZREM", K.overflow, id)
    call("HDEL", K.job .. id, "widens")
  end
  if expires then call("ZREM", K.expiring, id) end
end

-- Put a queued job on another queue, at the same place; whoever is to take it must be told.
-- Returns its kind.
local function requeue(id, from, to, at)
  local place = call("ZSCORE", K.queue .. from, id)
  call("ZREM", K.queue .. from, id)
  local r = call("HMGET", K.job .. id, "kind", "priority", "queued")
  place = place and string.format("%.0f", place) or position(r[2], r[3] or at)
  call("ZADD", K.queue .. to, place, id)
  call("HSET", K.job .. id, "queue", to)
  open_queue(to, at)
  return r[1]
end

-- Whether a job that is to run where `with` does waits for that, in whatever state.
local function waits_beside(id, with)
  local r = call("HMGET", K.job .. id, "state", "queue", "with")
  if r[3] ~= with then return false end
  return r[1] == "waiting" or r[1] == "scheduled" or r[1] == "queued", r[1], r[2]
end

-- The host where an attempt that was judged lost may still run. Only a reboot of that same machine
-- proves that nothing is left.
local function orphaned_on(orphan)
  local host, install, boot = orphan:match("^(%S+) ([^/]*)/(%S*)")
  local now_there = call("HMGET", K.host .. host, "install", "boot")
  if now_there[1] ~= install or now_there[2] == boot then return host end
end

-- "current" when the token (attempt, uid) holds the lease, else why not; and the record's state.
local function check(id, attempt, uid)
  local r = redis.pcall("HMGET", K.job .. id, "state", "attempt", "uid")
  if not r[1] then return "gone" end
  if r[2] ~= attempt or r[3] ~= uid then return "stale", r[1] end
  if r[1] ~= "running" and r[1] ~= "lost" then return "ended", r[1] end
  return "current", r[1]
end
