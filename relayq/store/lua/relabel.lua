-- relabel: replace what the fleet says of a host's labels, or of its capabilities, unless somebody
-- else did so meanwhile. `field` is `labels` or `caps`.
--
-- args: offset host field before after
-- Returns  "ok" | "changed" | "unknown"
call("ZREM", K.hosts, "")
local r = call("HMGET", K.host .. host, "install", field)
if not r[1] then return "unknown" end
if (r[2] or "") ~= before then return "changed" end
if after == "" then call("HDEL", K.host .. host, field) else call("HSET", K.host .. host, field, after) end
-- The host serves other queues now: its next claim is told to read them anew.
call("HINCRBY", K.meta, "queues", 1)
return "ok"
