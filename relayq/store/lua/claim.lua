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
-- A claim that no nudge brought takes one off the job's queue: else they would pile up.
--
-- args: offset host install boot session uid lease nudged registry max_running patience
-- rest: queue wants   (in pairs; `registry` is the version of the queues of needs that the worker knows)
-- Returns  "none" | "again" | "replaced" | "barred" | "full" | "queues" | "claimed", id, attempt, signed spec, failures and losses before, followers...
local holder = call("HMGET", K.host .. host, "install", "session", "drained", "paused")
if holder[1] ~= install or holder[2] ~= session then return { "replaced" } end
local meta = call("HMGET", K.meta, "queues", "paused")
local function is_paused(wish)
  local ends = cjson.decode(wish).ends
  return not (ends and tonumber(ends) <= now())
end
if holder[3] or (holder[4] and is_paused(holder[4])) or (meta[2] and is_paused(meta[2])) then return { "barred" } end
if registry ~= "" and registry ~= (meta[1] or "0") then return { "queues" } end
if max_running ~= "0" and call("ZCARD", K.state .. "running") + call("ZCARD", K.state .. "lost") >= tonumber(max_running) then
  call("HSET", K.meta, "full", "1")
  return { "full" }
end

-- An idle slot asks every 5 s, mostly for nothing: the clock is read for who needs it.
local at, first, place, where
local choosy, held = {}, {}
for i = rest, #ARGV, 2 do
  local head = call("ZRANGE", K.queue .. ARGV[i], 0, 0, "WITHSCORES")
  if head[1] then
    local its_place, wants = tonumber(head[2]), ARGV[i + 1]
    if wants == "" then
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
local record = call("HMGET", K.job .. first, "state", "attempt", "failures", "host", "losses", "widens", "expires")
if record[1] ~= "queued" then
  call("ZREM", K.queue .. where, first)
  return { "again" }
end
at = at or now()
local attempt = tonumber(record[2] or 0) + 1
-- First a write that Redis refuses when it is out of memory: nothing new starts then.
call("HSET", K.job .. first, "attempt", attempt, "uid", uid, "host", host,
  "boot", install .. "/" .. boot, "phase", "claimed",
  "claimed", instant(at))
call("ZREM", K.queue .. where, first)
if nudged == "" then call("RPOP", K.nudges .. where) end
call("HDEL", K.job .. first, "log_sent", "exit", "signal", "orphan")
rest_from_time(first, record[6], record[7])
if record[4] and record[4] ~= host then call("ZREM", K.by_host .. record[4], first) end
move(first, "queued", "running", instant(at + tonumber(lease)))
call("SADD", K.active .. host, first)
call("ZADD", K.by_host .. host, instant(at), first)
event("claimed", "j", first, "h", host, "a", attempt)
local follows
for _, id in ipairs(call("SMEMBERS", K.companions .. first)) do
  local waits, its_state, queue = waits_beside(id, first)
  local beside = waits and queue_beside(first, call("HGET", K.job .. id, "narrow"))
  if its_state == "queued" and queue ~= beside then
    requeue(id, queue, beside, at)
    follows = true
  end
end
if follows then tell(host, "wake") end
local answer = { "claimed", first, tostring(attempt), call("GET", K.spec .. first), record[3] or "0", record[5] or "0" }
for _, reply in ipairs(call("SMEMBERS", K.followers .. first)) do table.insert(answer, reply) end
return answer
