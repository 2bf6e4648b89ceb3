-- progress: note what a running job says of its progress; "" takes back what it said.
-- Refused to an attempt that isn't the job's any more: what it says would be shown as the next one's.
--
-- args: offset id attempt uid said
-- Returns  "noted" | "stale"
call("ZREM", K.hosts, "")
if check(id, attempt, uid) ~= "current" then return "stale" end
if said == "" then
  call("HDEL", K.job .. id, "progress", "progress_at")
else
  call("HSET", K.job .. id, "progress", said, "progress_at", instant(now()))
end
return "noted"
