-- cancel: end a job for its owner. What isn't running is cancelled at once; a running one is told
-- through its record (kept until its host obeys) and through its host's control list (at once).
--
-- uses: ends
-- args: offset id who
-- Returns  "cancelled" | "asked", host | the final state that it already has | "gone"
local state, host = unpack(call("HMGET", K.job .. id, "state", "host"))
if not state then return { "gone" } end
if is_final(state) then return { state } end
-- Redis allows it when it is out of memory, and then what follows.
call("ZREM", K.hosts, "")
local at = now()
local is_held = state == "running" or state == "lost"
if not is_held or call("HEXISTS", K.job .. id, "cancel") == 0 then
  event("cancelled", "j", id, "h", is_held and host or "", "w", who)
end
local ended = {}
local word, where = call_off(id, at, nil, ended)
run_down(ended, at)
return { word, where }
