-- park: lengthen the leases of a worker that stops on purpose, and note that it did.
-- Its jobs go on under their shims until the next worker process adopts them. What it must end
-- first is told as by a beat: on a parked permit a stale attempt would run on beside its successor.
--
-- args: offset host install duration
-- rest: id attempt uid   (per running attempt)
-- Returns  "replaced" | "ok", then one word a token: "ok" | "cancel" | "stale"
call("ZREM", K.hosts, "")
if call("HGET", K.host .. host, "install") ~= install then return { "replaced" } end
local words = { "ok" }
local ends = now() + tonumber(duration)
for i = rest, #ARGV, 3 do
  local id = ARGV[i]
  local word, state = check(id, ARGV[i + 1], ARGV[i + 2])
  if word ~= "current" then
    table.insert(words, "stale")
  else
    local until_now = state == "running" and tonumber(call("ZSCORE", K.state .. "running", id)) or 0
    move(id, state, "running", instant(math.max(ends, until_now)))
    table.insert(words, call("HGET", K.job .. id, "cancel") and "cancel" or "ok")
  end
end
call("HSET", K.host .. host, "stopped", instant(now()))
event("stopped", "h", host)
return words
