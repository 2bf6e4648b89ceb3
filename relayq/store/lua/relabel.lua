-- relabel: replace what the fleet says of a host's labels, unless somebody else did so meanwhile.
--
-- args: offset host before after
-- Returns  "ok" | "changed" | "unknown"
call("ZREM", K.hosts, "")
local r = call("HMGET", K.host .. host, "install", "labels")
if not r[1] then return "unknown" end
if (r[2] or "") ~= before then return "changed" end
if after == "" then call("HDEL", K.host .. host, "labels") else call("HSET", K.host .. host, "labels", after) end
-- The host serves other queues now: its next claim is told to read them anew.
call("HINCRBY", K.meta, "queues", 1)
return "ok"
