-- cancel: end jobs for their owner. What isn't running is cancelled at once; a running one is told
-- through its record (kept until its host obeys) and through its host's control list (at once).
-- All of them are called off before anything is released by that.
--
-- uses: ends
-- args: offset who
-- rest: ids
-- Returns  two words a job: "cancelled" | "asked" | the final state that it already has | "gone", its host or "", ...
local at, ended, words, first = now(), {}, {}, true
for i = rest, #ARGV do
  local id = ARGV[i]
  local state, host = unpack(call("HMGET", K.job .. id, "state", "host"))
  local word, where = state or "gone", nil
  if state and not is_final(state) then
    -- Redis allows it when it is out of memory, and then what follows.
    if first then call("ZREM", K.hosts, "") end
    first = false
    local is_held = state == "running" or state == "lost"
    if not is_held or call("HEXISTS", K.job .. id, "cancel") == 0 then
      event("cancelled", "j", id, "h", is_held and host or "", "w", who)
    end
    word, where = call_off(id, at, nil, ended)
  end
  table.insert(words, word)
  table.insert(words, where or "")
end
run_down(ended, at)
return words
