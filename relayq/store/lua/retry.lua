-- retry: a person queues an ended or parked job again; it clears a cancel and the counts.
-- Refused while an attempt that was judged lost may still run on a host that has neither
-- reported it gone nor rebooted, unless the person says that it is gone (force); and while another
-- job has its unique key.
--
-- `note` is the person's remark, if there is one; `consent` their signed word, for a host that has brought the
-- job to an end before.
--
-- A job that became others isn't run again by itself: `rerun` takes those along that failed.
--
-- uses: again
-- args: offset template id force note consent who
-- Returns  "queued" | "orphan", host | "taken", id | "unfit", state | "fanned" | "gone"
local r = call("HMGET", K.job .. id, "state", "orphan", "unique", "fanned", "halts", "group")
local state = r[1]
if not state then return { "gone" } end
if state ~= "succeeded" and state ~= "failed" and state ~= "cancelled" and state ~= "needs_human" then
  return { "unfit", state }
end
if r[4] and is_final(state) then return { "fanned" } end
local orphan = r[2] and force == "" and orphaned_on(r[2])
if orphan then return { "orphan", orphan } end
if r[3] then
  local holder = holder_of(r[3])
  if holder and holder ~= id then return { "taken", holder } end
end
local at = now()
call("HSET", K.job .. id, "queued", instant(at))
if r[3] then call("SET", K.unique .. r[3], id) end
call("HDEL", K.job .. id, "cancel", "halted", "exit", "signal", "losses", "unstarted", "failures",
  "orphan", "ended_by", "note", "expires")
call("HSET", K.job .. id, "consent", consent)
if note ~= "" then call("HSET", K.job .. id, "note", note) end
call("DEL", K.done .. id)
close_question(id)
enqueue(id, state, at, "retried", "s", state, "w", who)
for name in (r[5] or ""):gmatch("%S+") do recount(name) end
local flow = flow_of(r[6])
if flow then call("HDEL", K.flow .. flow, "cancelled") end
return { "queued" }
