-- answer: give a job the signed reply to what it asked.
-- One that ended with its question is queued again, before those that came later, and its next claim
-- has the reply; the worker of one that still runs is told. Of two people who answer at once the first
-- is heard: an attempt, or a question, that is no longer the job's is refused, and so is a reply to
-- what nobody asks any more. A repeat (a lost reply) changes nothing.
--
-- args: offset template id attempt question answer force who
-- Returns  "queued" | "told", host | "already" | "changed", the job's attempt | "orphan", host | "unfit", state | "gone"
local r = call("HMGET", K.job .. id, "state", "attempt", "asks", "host", "orphan", "question")
local state = r[1]
if not state then return { "gone" } end
if call("GET", K.answer .. id) == answer then return { "already" } end
local is_held = state == "running" or state == "lost"
if state ~= "needs_human" and not (is_held and r[3]) then return { "unfit", state } end
if r[2] ~= attempt or (r[3] or "") ~= question then return { "changed", r[2] or "0" } end
if is_held then
  -- Somebody else has answered it.
  if not r[6] then return { "changed", r[2] } end
  call("SET", K.answer .. id, answer)
  call("HDEL", K.job .. id, "question", "choices", "asked_at")
  call("ZREM", K.asking, id)
  event("answered", "j", id, "h", r[4], "a", attempt, "w", who)
  call("RPUSH", K.control .. r[4], cjson.encode({ op = "answer", job = id }))
  call("LTRIM", K.control .. r[4], -1000, -1)
  call("EXPIRE", K.control .. r[4], 120)
  return { "told", r[4] }
end
local orphan = r[5] and force == "" and orphaned_on(r[5])
if orphan then return { "orphan", orphan } end
local at = now()
call("SET", K.answer .. id, answer)
call("HDEL", K.job .. id, "cancel", "exit", "signal", "losses", "unstarted", "failures", "orphan", "note", "expires")
call("DEL", K.done .. id)
enqueue(id, state, at, "answered", "a", attempt, "w", who)
return { "queued" }
