-- resolve: a person closes a job that waits for one, as succeeded or failed.
--
-- uses: ends
-- args: offset template id state note who
-- Returns  the state that the job now has | "unfit", state | "gone"
call("ZREM", K.hosts, "")
local from = call("HGET", K.job .. id, "state")
if not from then return { "gone" } end
if from ~= "needs_human" then return { "unfit", from } end
local at = now()
if note ~= "" then call("HSET", K.job .. id, "note", note) end
close_question(id)
event("resolved", "j", id, "s", state, "w", who)
conclude(id, from, state, "user", at)
return { state }
