-- pause: have a running job's processes, or all of a host's or of the fleet's, stand still until
-- `resume`, or for so many seconds. Kept in the job's record, the host's or `meta`, and obeyed with
-- the next beat, also by a host that is away now; those that are up are told to beat at once.
-- A pause of a job belongs to its attempt: what waits has nothing that could stand still. A host that
-- is paused claims nothing.
--
-- args: offset id host seconds reason who
-- Returns  "paused", hosts that were told... | "unfit", state | "gone" | "no_host"
local at = now()
local wish = { since = instant(at), reason = reason, who = who }
if seconds ~= "" then wish.ends = instant(at + tonumber(seconds)) end
wish = cjson.encode(wish)
local told = { "paused" }
if id ~= "" then
  local r = call("HMGET", K.job .. id, "state", "host")
  if not r[1] then return { "gone" } end
  if r[1] ~= "running" and r[1] ~= "lost" then return { "unfit", r[1] } end
  call("HSET", K.job .. id, "pause", wish)
  tell(r[2], "beat")
  table.insert(told, r[2])
elseif host ~= "" then
  if call("EXISTS", K.host .. host) == 0 then return { "no_host" } end
  call("HSET", K.host .. host, "paused", wish)
  tell(host, "beat")
  table.insert(told, host)
else
  call("HSET", K.meta, "paused", wish)
  for _, name in ipairs(call("ZRANGE", K.hosts, 0, -1)) do
    tell(name, "beat")
    table.insert(told, name)
  end
end
event("paused", "j", id, "h", host, "w", who, "r", reason, "t", seconds)
return told
