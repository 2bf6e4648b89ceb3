-- publish: replace what a host says of itself; its heartbeat is left as it was.
-- Refused to an install that lost the name, so that a worker on its way out can't speak for another.
--
-- args: offset host install facts
-- Returns  "ok" | "replaced"
call("ZREM", K.hosts, "")
if call("HGET", K.host .. host, "install") ~= install then return "replaced" end
call("HSET", K.host .. host, "facts", facts)
return "ok"
