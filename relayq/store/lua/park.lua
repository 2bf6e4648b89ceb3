-- park: lengthen the leases of a worker that stops on purpose, and note that it did.
-- Its jobs go on under their shims until the next worker process adopts them.
--
-- args: offset host install duration
-- rest: id attempt uid   (per running attempt)
-- Returns  "ok" | "replaced"
call("ZREM", K.hosts, "")
if call("HGET", K.host .. host, "install") ~= install then return "replaced" end
local ends = now() + tonumber(duration)
for i = rest, #ARGV, 3 do
  local id = ARGV[i]
  local word, state = check(id, ARGV[i + 1], ARGV[i + 2])
  if word == "current" then
    local until_now = state == "running" and tonumber(call("ZSCORE", K.state .. "running", id)) or 0
    move(id, state, "running", instant(math.max(ends, until_now)))
  end
end
call("HSET", K.host .. host, "stopped", instant(now()))
return "ok"
