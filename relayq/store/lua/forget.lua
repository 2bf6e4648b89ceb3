-- forget: delete all that is known of ended jobs, at most those that ended before an instant.
-- Looks at each record itself, so that a job which was retried meanwhile stays. One in no state that
-- a job can be in, so that nothing else could end it, goes as well.
--
-- uses: forgetting
-- args: offset before who
-- rest: ids   ("" as `before`: whenever they ended)
-- Returns  one word a job: "forgotten" | "younger" | "gone" | the state that it is in
call("ZREM", K.hosts, "")
-- Its record didn't say where it is listed; of hosts, names and groups a sweep finds that.
local function leave_indices(id)
  for _, state in ipairs({ "waiting", "scheduled", "queued", "running", "lost", "needs_human", "succeeded", "failed", "cancelled" }) do
    call("ZREM", K.state .. state, id)
  end
end

local words, gone, first = {}, 0, nil
local is_open = { waiting = true, scheduled = true, queued = true, running = true, lost = true, needs_human = true }
for i = rest, #ARGV do
  local is_there = call("EXISTS", K.job .. ARGV[i]) == 1
  if not is_hash(K.job .. ARGV[i]) then call("DEL", K.job .. ARGV[i]) end
  local r = call("HMGET", K.job .. ARGV[i], "state", "finished")
  local word = r[1] or "gone"
  if is_there and not is_open[r[1]] then
    if before ~= "" and (tonumber(r[2]) or 0) >= tonumber(before) then
      word = "younger"
    else
      if not spare(forget, ARGV[i]) then call("DEL", K.job .. ARGV[i]); forget(ARGV[i]) end
      if not is_final(r[1]) then leave_indices(ARGV[i]) end
      word = "forgotten"
      gone, first = gone + 1, first or ARGV[i]
    end
  end
  table.insert(words, word)
end
-- One line for all of them: a large prune must not push everything else out of the trail.
if gone > 0 then event("forgotten", "j", first, "n", gone, "w", who) end
return words
