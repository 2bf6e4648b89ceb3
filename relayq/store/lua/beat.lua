-- beat: renew the leases that a worker names by token, and report the host alive.
-- Renewing by token and not by host lets a claim whose answer got lost expire. A beat never
-- shortens a lease, and finds again a job that was judged too late to be lost only for good.
--
-- args: offset host install boot lease load
-- rest: id attempt uid phase   (per running attempt)
-- Returns  "ok" | "replaced" | "unregistered", then one word a token: "ok" | "cancel" | "stale"
call("ZREM", K.hosts, "")
local registered = redis.pcall("HMGET", K.host .. host, "install", "boot")
if not registered[1] then return { "unregistered" } end
if registered[1] ~= install or registered[2] ~= boot then return { "replaced" } end
local at = now()
local words = { "ok" }
for i = rest, #ARGV, 4 do
  local id, attempt, uid, phase = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local word, state = check(id, attempt, uid)
  if word ~= "current" then
    table.insert(words, "stale")
  else
    local ends = at + tonumber(lease)
    if state == "running" then
      ends = math.max(ends, tonumber(call("ZSCORE", K.state .. "running", id) or 0))
    end
    move(id, state, "running", instant(ends))
    if state == "lost" then event("found", "j", id, "h", host, "a", attempt) end
    local cancelled = call("HGET", K.job .. id, "cancel")
    if phase == "started" and not cancelled then
      if call("HSETNX", K.job .. id, "started", instant(at)) == 1 then
        call("HSET", K.job .. id, "phase", "started")
      end
    end
    table.insert(words, cancelled and "cancel" or "ok")
  end
end
if load ~= "" then
  call("HSET", K.host .. host, "seen", instant(at), "load", load)
  call("ZADD", K.hosts, instant(at), host)
end
return words
