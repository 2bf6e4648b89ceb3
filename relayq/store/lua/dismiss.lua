-- dismiss: forget a host that is gone for good; `heir` is the host that goes by its name from now on.
-- Refused while it may still answer, runs something, or has jobs on its queue. Its ended jobs stay.
--
-- args: offset host heir lease who
-- Returns  "ok" | "unknown" | "online" | "running" | "queued" | "no heir"
call("ZREM", K.hosts, "")
local key = K.host .. host
if not is_hash(key) then call("DEL", key) end
local r = call("HMGET", key, "install", "seen", "stopped", "was")
if not r[1] and not call("ZSCORE", K.hosts, host) then return "unknown" end
if tonumber(r[2]) and not r[3] and tonumber(r[2]) + tonumber(lease) > now() then return "online" end
if call("SCARD", K.active .. host) > 0 then return "running" end
if call("ZCARD", K.queue .. "host." .. host) > 0 then return "queued" end
if heir == "" then
  for _, queue in ipairs(call("ZRANGE", K.queues, 0, -1)) do
    local only = queue:match("[.,]on=([^,|]*)$")
    if only == host and call("ZCARD", K.queue .. queue) > 0 then return "queued" end
  end
end
if heir ~= "" then
  if call("HEXISTS", K.host .. heir, "install") == 0 then return "no heir" end
  -- The heir's own former names, and those that the other one had inherited.
  local was = call("HGET", K.host .. heir, "was")
  local names = host
  if r[4] then names = names .. "," .. r[4] end
  if was then names = was .. "," .. names end
  call("HSET", K.host .. heir, "was", names)
  -- It serves other queues now: its next claim is told to read them anew.
  call("HINCRBY", K.meta, "queues", 1)
end
call("DEL", key, K.control .. host, K.nudges .. "host." .. host, K.active .. host)
call("ZREM", K.hosts, host)
if heir == "" then event("dismissed", "h", host, "w", who)
else event("renamed", "h", heir, "r", host, "w", who) end
return "ok"
