-- append: add a piece of an attempt's output to the job's log, once.
-- A piece that is already there (a lost reply) is skipped by its position.
--
-- args: offset id attempt uid position_at size piece
-- Returns  "ok" | "already" | "stale"
call("ZREM", K.hosts, "")
if check(id, attempt, uid) ~= "current" then return "stale" end
local sent = tonumber(call("HGET", K.job .. id, "log_sent") or 0)
if tonumber(position_at) < sent then return "already" end
call("XADD", K.log .. id, "*", "a", attempt, "p", position_at, "d", piece)
call("HSET", K.job .. id, "log_sent", tonumber(position_at) + tonumber(size))
return "ok"
