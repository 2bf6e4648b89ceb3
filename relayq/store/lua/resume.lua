-- resume: take back a person's pause of a job, a host or the fleet. Who is up is told to beat at once.
--
-- args: offset id host who
-- Returns  "resumed", hosts that were told... | "unpaused" | "unfit", state | "gone" | "no_host"
call("ZREM", K.hosts, "")
local told = { "resumed" }
if id ~= "" then
  local r = call("HMGET", K.job .. id, "state", "host")
  if not r[1] then return { "gone" } end
  if r[1] ~= "running" and r[1] ~= "lost" then return { "unfit", r[1] } end
  if call("HDEL", K.job .. id, "pause") == 0 then return { "unpaused" } end
  tell(r[2], "beat")
  table.insert(told, r[2])
elseif host ~= "" then
  if call("EXISTS", K.host .. host) == 0 then return { "no_host" } end
  if call("HDEL", K.host .. host, "paused") == 0 then return { "unpaused" } end
  tell(host, "beat")
  table.insert(told, host)
else
  if call("HDEL", K.meta, "paused") == 0 then return { "unpaused" } end
  for _, name in ipairs(call("ZRANGE", K.hosts, 0, -1)) do
    tell(name, "beat")
    table.insert(told, name)
  end
end
event("resumed", "j", id, "h", host, "w", who)
return told
