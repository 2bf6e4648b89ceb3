-- stop: cancel all jobs of a workflow's run. Nothing of it starts after the answer: what isn't running is
-- cancelled before anything is released by that, and what is submitted to it later is cancelled at once.
--
-- uses: ends
-- args: offset flow who
-- Returns  a word a job, in the order of their submission: id, "cancelled" | "asked" | the final state that it has already, ...
call("ZREM", K.hosts, "")
local at = now()
if call("EXISTS", K.flow .. flow) == 1 then call("HSET", K.flow .. flow, "cancelled", instant(at)) end
local members, ended, words = call("ZRANGE", K.group .. "flow-" .. flow, 0, -1), {}, {}
for _, id in ipairs(members) do
  local word = call_off(id, at, nil, ended)
  table.insert(words, id)
  table.insert(words, word)
end
if members[1] then event("cancelled", "j", members[1], "n", #members, "w", who) end
run_down(ended, at)
return words
