-- lose: the host itself reports that nothing is left of an attempt that never reported its end.
-- So the verdict needs no wait: after a reboot, or when the shim was killed.
--
-- uses: verdict
-- args: offset template id attempt uid crash_limit
-- Returns  the state that the job now has | "stale" | "gone"
call("ZREM", K.hosts, "")
local word, from = check(id, attempt, uid)
if word == "gone" then return "gone" end
if word ~= "current" then
  local orphan = call("HMGET", K.job .. id, "orphan", "host")
  if orphan[1] and orphan[1]:sub(-#(attempt .. " " .. uid)) == attempt .. " " .. uid then
    call("HDEL", K.job .. id, "orphan")
  end
  return "stale"
end
return verdict(id, from, now(), crash_limit, true)
