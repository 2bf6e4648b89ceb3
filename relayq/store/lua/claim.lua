-- claim: give the first job of the worker's queues to a slot of its host, for one lease.
-- Highest priority first, then first come, over all the queues that the host serves: so a lost,
-- duplicated, stale or forged nudge decides nothing. Refused to a session that isn't the host's
-- last: a claim that a cut link delivers late, when nobody waits for its answer, takes no job. A member without a queued record is removed; then the answer is "again".
--
-- A claim that no nudge brought takes one off the job's queue: else they would pile up.
--
-- args: offset host install boot session uid lease nudged
-- rest: queues
-- Returns  "none" | "again" | "replaced" | "claimed", id, attempt, signed spec, failures and losses before, followers...
local holder = call("HMGET", K.host .. host, "install", "session")
if holder[1] ~= install or holder[2] ~= session then return { "replaced" } end
local first, best, where
for i = rest, #ARGV do
  local head = call("ZRANGE", K.queue .. ARGV[i], 0, 0, "WITHSCORES")
  if head[1] and (not best or tonumber(head[2]) < best) then
    first, best, where = head[1], tonumber(head[2]), ARGV[i]
  end
end
if not first then return { "none" } end
local record = call("HMGET", K.job .. first, "state", "attempt", "failures", "host", "losses")
if record[1] ~= "queued" then
  call("ZREM", K.queue .. where, first)
  return { "again" }
end
local at = now()
local attempt = tonumber(record[2] or 0) + 1
-- First a write that Redis refuses when it is out of memory: nothing new starts then.
call("HSET", K.job .. first, "attempt", attempt, "uid", uid, "host", host,
  "boot", install .. "/" .. boot, "phase", "claimed",
  "claimed", instant(at))
call("ZREM", K.queue .. where, first)
if nudged == "" then call("RPOP", K.nudges .. where) end
call("HDEL", K.job .. first, "log_sent", "exit", "signal", "orphan")
if record[4] and record[4] ~= host then call("ZREM", K.by_host .. record[4], first) end
move(first, "queued", "running", instant(at + tonumber(lease)))
call("SADD", K.active .. host, first)
call("ZADD", K.by_host .. host, instant(at), first)
event("claimed", "j", first, "h", host, "a", attempt)
local answer = { "claimed", first, tostring(attempt), call("GET", K.spec .. first), record[3] or "0", record[5] or "0" }
for _, reply in ipairs(call("SMEMBERS", K.followers .. first)) do table.insert(answer, reply) end
return answer
