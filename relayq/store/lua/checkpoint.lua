-- checkpoint: keep what a running job leaves for its next attempt; "" takes back what it left.
-- Refused to an attempt that isn't the job's any more: the one after it may have come farther. Redis
-- refuses it when it is out of memory; the job goes on without.
--
-- args: offset id attempt uid content
-- Returns  "kept" | "stale"
if check(id, attempt, uid) ~= "current" then return "stale" end
if content == "" then
  call("DEL", K.checkpoint .. id)
else
  call("SET", K.checkpoint .. id, content)
end
return "kept"
