-- claim: give the first job of the worker's queues to a slot of its host, for one lease.
-- Highest priority first, then first come, over all the queues that the host serves: so a lost,
-- duplicated, stale or forged nudge decides nothing. Refused to a session that isn't the host's
-- last: a claim that a cut link delivers late, when nobody waits for its answer, takes no job. A member without a queued record is removed; then the answer is "again".
--
-- All jobs of a queue want the same of a host, so the worker says of each queue what they want, and
-- whether the host has that now ("cuda memory", or "!cuda memory" if not). Of what a job wants that
-- has waited for `patience` seconds, nothing is given to one that comes after it: so many small jobs
-- can't keep out a big one for ever.
--
-- Of a queue of agents' jobs the worker also says which accounts they may use, the first choice first:
-- `@claude/default=3:0:2.4` (at most 3 jobs at a time in the whole fleet, a day's budget in
-- millionths of a dollar or 0, seconds until the next may start), with a "!" after the "@" for an
-- agent that this host hasn't. A job gets the first that is neither paused nor over its budget, if it
-- is this host's and has room; where nobody uses one that this host hasn't, that is waited for
-- `patience` seconds.
--
-- A claim that no nudge brought takes one off the job's queue: else they would pile up.
--
-- A job whose record doesn't allow to claim it leaves its queue, and the answer is "unfit": who claims has
-- it given up. To do so here would have every claim pay for what an end brings with it.
--
-- A worker that has yet to learn of the fleet's key (`key_id` names its own) takes nothing: what an old
-- key signed may be good no longer.
--
-- args: offset host install boot session uid lease nudged registry max_running patience key_id
-- rest: queue wants   (in pairs; `registry` is the version of the queues of needs that the worker knows)
-- Returns  "none" | "again" | "unfit", id | "replaced" | "barred" | "full" | "queues" | "key" | "claimed", id, attempt, signed spec, failures and losses before, queue, account, answer, the outcome before it, the jobs that it became, followers...
local holder = call("HMGET", K.host .. host, "install", "session", "drained", "paused")
if holder[1] ~= install or holder[2] ~= session then return { "replaced" } end
local meta = call("HMGET", K.meta, "queues", "paused", "key_id")
if key_id ~= "" and meta[3] and meta[3] ~= key_id then return { "key" } end
-- What can't be read counts as a pause until the next beat takes it out.
local function is_paused(wish)
  local is_read, ends = spare(function() return tonumber(cjson.decode(wish).ends) end)
  return not (is_read and ends and ends <= now())
end
if holder[3] or (holder[4] and is_paused(holder[4])) or (meta[2] and is_paused(meta[2])) then return { "barred" } end
if registry ~= "" and registry ~= (meta[1] or "0") then return { "queues" } end
if max_running ~= "0" and call("ZCARD", K.state .. "running") + call("ZCARD", K.state .. "lost") >= tonumber(max_running) then
  call("HSET", K.meta, "full", "1")
  return { "full" }
end

-- An idle slot asks every 5 s, mostly for nothing: the clock is read for who needs it.
local at, first, place, where

-- How it stands with an account: "free", "closed", or "busy", of which the next one is no substitute.
-- The second value says whether a job uses it.
local known = {}
local function standing(name, limit, budget)
  if known[name] then return unpack(known[name]) end
  at = at or now()
  local key = K.account .. name
  local r = call("HMGET", key, "ends", "next", "probe", "day", "spent", "full", "room", "eased")
  local active = call("SCARD", K.account_active .. name)
  local next_start, word = tonumber(r[2] or 0), "free"
  local since, prober = (r[3] or ""):match("^(%S+) (%S+)$")
  -- One that tries an account after its pause has shown within a minute that it works.
  local is_tried = since and at - tonumber(since) < 60 and call("SISMEMBER", K.account_active .. name, prober) == 1
  if r[1] and tonumber(r[1]) > at then
    word = "closed"
  elseif budget > 0 and r[4] == tostring(math.floor(at / 86400)) and tonumber(r[5] or 0) >= budget then
    word = "closed"
  elseif active >= room_of(limit, r[7], r[8], at) or is_tried then
    if not r[6] then call("HSET", key, "full", "1") end
    word = "busy"
  elseif next_start > at and next_start < at + 600 then
    word = "busy"
  end
  known[name] = { word, active > 0 }
  return word, active > 0
end

-- The account that the first job of a queue gets now, with its quota; nil if none.
local function account_for(id, wants)
  for missing, name, limit, budget, stagger in wants:gmatch("@(!?)([^%s=]+)=(%d+):(%d+):([%d.]+)") do
    local word, is_used = standing(name, tonumber(limit), tonumber(budget))
    if word ~= "closed" and missing == "" then
      return word == "free" and { name, limit, budget, tonumber(stagger) } or nil
    elseif word ~= "closed" then
      local since = call("ZSCORE", K.state .. "queued", id)
      if is_used or not since or at - tonumber(since) <= tonumber(patience) then return nil end
    end
  end
end

local choosy, held = {}, {}
local accounts = {}
for i = rest, #ARGV, 2 do
  local head = call("ZRANGE", K.queue .. ARGV[i], 0, 0, "WITHSCORES")
  if head[1] then
    local its_place, wants = tonumber(head[2]), ARGV[i + 1]
    if wants:find("@", 1, true) then
      local is_known, account = spare(account_for, head[1], wants)
      accounts[ARGV[i]] = is_known and account or nil
      wants = accounts[ARGV[i]] and wants:gsub(" ?@%S+", "") or nil
    end
    if not wants then
      -- No account of its is free: what it would take of the host is free for others.
    elseif wants == "" then
      if not first or its_place < place then first, place, where = head[1], its_place, ARGV[i] end
    elseif wants:sub(1, 1) ~= "!" then
      table.insert(choosy, { head[1], its_place, ARGV[i], wants })
    else
      at = at or now()
      if at - its_place % 9e14 / 1e6 - 1735689600 > tonumber(patience) then
        table.insert(held, { its_place, wants:sub(2) .. " " })
      end
    end
  end
end

-- Whether a job would take from one before it what that waits for.
local function overtakes(its_place, wants)
  for _, before in ipairs(held) do
    if before[1] < its_place then
      for want in wants:gmatch("%S+") do
        if before[2]:find(want .. " ", 1, true) then return true end
      end
    end
  end
end

for _, one in ipairs(choosy) do
  if (not first or one[2] < place) and not overtakes(one[2], one[4]) then first, place, where = one[1], one[2], one[3] end
end
if not first then return { "none" } end
local record = redis.pcall("HMGET", K.job .. first, "state", "attempt", "failures", "host", "losses", "widens", "expires", "fanned")
if record[1] ~= "queued" then
  call("ZREM", K.queue .. where, first)
  return { "again" }
end
at = at or now()
local attempt = (tonumber(record[2] or 0) or -1) + 1
local are_counts = attempt > 0 and tonumber(record[3] or 0) and tonumber(record[5] or 0)
if not are_counts or first:find("[%c\128-\255]") then
  call("ZREM", K.queue .. where, first)
  return { "unfit", first }
end
-- First a write that Redis refuses when it is out of memory: nothing new starts then.
call("HSET", K.job .. first, "attempt", attempt, "uid", uid, "host", host,
  "boot", install .. "/" .. boot, "phase", "claimed",
  "claimed", instant(at))
call("ZREM", K.queue .. where, first)
if nudged == "" then call("RPOP", K.nudges .. where) end
call("HDEL", K.job .. first, "log_sent", "exit", "signal", "orphan", "account")
rest_from_time(first, record[6], record[7])
if record[4] and record[4] ~= host then call("ZREM", K.by_host .. record[4], first) end
move(first, "queued", "running", instant(at + tonumber(lease)))
call("SADD", K.active .. host, first)
call("ZADD", K.by_host .. host, instant(at), first)
local account = accounts[where]
if account then
  local key, name = K.account .. account[1], account[1]
  call("HSET", K.job .. first, "account", name)
  call("SADD", K.account_active .. name, first)
  call("HSET", key, "next", instant(at + account[4]), "limit", account[2], "budget", account[3], "used", instant(at))
  local probe = call("HGET", key, "probe")
  if probe then
    local since, prober = probe:match("^(%S+) (%S+)$")
    local has_shown = since and at - tonumber(since) >= 60 and call("SISMEMBER", K.account_active .. name, prober) == 1
    if has_shown then call("HDEL", key, "probe") else call("HSET", key, "probe", instant(at) .. " " .. first) end
  end
  keep_account(name, at)
end
event("claimed", "j", first, "h", host, "a", attempt, "c", account and account[1] or "")
local follows
local function bring(id)
  local waits, its_state, queue = waits_beside(id, first)
  local beside = waits and queue_beside(first, call("HGET", K.job .. id, "narrow"))
  if its_state == "queued" and queue ~= beside then
    requeue(id, queue, beside, at)
    follows = true
  end
end
for _, id in ipairs(call("SMEMBERS", K.companions .. first)) do spare(bring, id) end
if follows then tell(host, "wake") end
local reply = attempt > 1 and call("GET", K.answer .. first) or ""
local before = reply ~= "" and call("GET", K.outcome .. first) or ""
local answer = { "claimed", first, tostring(attempt), call("GET", K.spec .. first), record[3] or "0", record[5] or "0",
  where, account and account[1] or "", reply, before, record[8] or "" }
for _, reply in ipairs(call("SMEMBERS", K.followers .. first)) do table.insert(answer, reply) end
return answer
