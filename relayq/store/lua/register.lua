-- register: take a host's name for one install and boot of it.
-- A second live machine with the same name (a cloned card) is refused; the same install after a
-- restart or reboot takes over, and is told the attempts that the records say it runs, so that it
-- can speak for those it still has and report the others lost. Its permit ends within a lease-length,
-- since the leases of these attempts do from here on.
--
-- args: offset host install boot session lease key_id slots version facts
-- Returns  "wrong_key" | "taken" | "ok", then id, attempt, uid of each of its attempts
call("ZREM", K.hosts, "")
local at = now()
local known = call("HGET", K.meta, "key_id")
-- Who is refused asks again every second: one line in ten minutes says it.
local function refuse(why)
  if call("SET", K.refused .. host, install, "NX", "EX", 600) then
    event("refused", "h", host, "r", why, "k", install)
  end
  return { why }
end
if known and known ~= key_id then return refuse("wrong_key") end
if not is_hash(K.host .. host) then call("DEL", K.host .. host) end
local old = call("HMGET", K.host .. host, "install", "seen", "stopped")
local is_live = tonumber(old[2]) and not old[3] and tonumber(old[2]) + tonumber(lease) > at
if old[1] and old[1] ~= install and is_live then return refuse("taken") end
call("HSET", K.host .. host, "install", install, "boot", boot, "session", session, "seen", instant(at), "slots", slots,
  "version", version, "facts", facts)
call("HDEL", K.host .. host, "stopped")
call("ZADD", K.hosts, instant(at), host)
if not known then call("HSET", K.meta, "key_id", key_id) end
event("registered", "h", host, "k", install)
local answer = { "ok" }
for _, id in ipairs(call("SMEMBERS", K.active .. host)) do
  local r = redis.pcall("HMGET", K.job .. id, "attempt", "uid", "host", "state", "boot")
  local is_whole = tonumber(r[1]) and r[2] and r[5]
  if not is_whole or r[3] ~= host or (r[4] ~= "running" and r[4] ~= "lost") then
    call("SREM", K.active .. host, id)
  elseif r[5]:sub(1, #install + 1) == install .. "/" then
    -- Not what another machine of this name runs: nobody can speak for that but itself.
    table.insert(answer, id); table.insert(answer, r[1]); table.insert(answer, r[2])
    -- A parked lease has served its purpose: a host that dies now is noticed as soon as any other.
    local ends = call("ZSCORE", K.state .. "running", id)
    if ends and tonumber(ends) > at + tonumber(lease) then
      call("ZADD", K.state .. "running", instant(at + tonumber(lease)), id)
    end
  end
end
return answer
