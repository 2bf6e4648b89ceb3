-- forget: delete all that is known of ended jobs, at most those that ended before an instant.
-- Looks at each record itself, so that a job which was retried meanwhile stays.
--
-- uses: forgetting
-- args: offset before who
-- rest: ids   ("" as `before`: whenever they ended)
-- Returns  one word a job: "forgotten" | "younger" | "gone" | the state that it is in
call("ZREM", K.hosts, "")
local words, gone, first = {}, 0, nil
for i = rest, #ARGV do
  local r = call("HMGET", K.job .. ARGV[i], "state", "finished")
  local word = r[1] or "gone"
  if is_final(r[1]) then
    if before ~= "" and tonumber(r[2]) >= tonumber(before) then
      word = "younger"
    else
      forget(ARGV[i])
      word = "forgotten"
      gone, first = gone + 1, first or ARGV[i]
    end
  end
  table.insert(words, word)
end
-- One line for all of them: a large prune must not push everything else out of the trail.
if gone > 0 then event("forgotten", "j", first, "n", gone, "w", who) end
return words
