-- tick: what must happen because time passed: leases that expire, verdicts that are due, jobs
-- whose time has come, records that are old. Bounded, and re-checks everything, so that any number
-- of callers is harmless. Nothing expires or is judged in the first lease-length after a new Redis
-- run id was seen, nor (once) for one lease-length when several hosts seem to vanish at a time.
--
-- args: offset template lease lost_min lost_max crash_limit keep limit
-- Returns  words of what was done: "expired" id, "judged" id, "due" id, "pruned" id
call("ZREM", K.hosts, "")
local at = now()
local done = {}
local function note(word, id) table.insert(done, word); table.insert(done, id) end

-- fakeredis has no INFO: there the run id never changes.
local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and info:match("run_id:(%w+)") or "-"
local meta = call("HMGET", K.meta, "run_id", "quiet_until", "brake")
local quiet_until = tonumber(meta[2] or 0)
if meta[1] ~= run_id then
  quiet_until = meta[1] and at + tonumber(lease) or 0
  call("HSET", K.meta, "run_id", run_id, "quiet_until", instant(quiet_until))
end

local function braked(expired)
  local hosts, count = {}, 0
  for _, id in ipairs(expired) do
    local host = call("HGET", K.job .. id, "host") or ""
    if not hosts[host] then hosts[host] = true; count = count + 1 end
  end
  local brake = tonumber(meta[3] or 0)
  if at < brake then return true end
  if count < 2 or at < brake + 2 * tonumber(lease) then return false end
  call("HSET", K.meta, "brake", instant(at + tonumber(lease)))
  return true
end

if at >= quiet_until then
  local expired = call("ZRANGEBYSCORE", K.state .. "running", "-inf", instant(at), "LIMIT", 0, limit)
  if #expired > 0 and not braked(expired) then
    for _, id in ipairs(expired) do
      local r = call("HMGET", K.job .. id, "phase", "started")
      if not r[1] then
        call("ZREM", K.state .. "running", id)
      elseif r[1] == "claimed" then
        verdict(id, "running", at, crash_limit, false)
      else
        local wait = math.min(tonumber(lost_max), (at - tonumber(r[2] or at)) / 10)
        move(id, "running", "lost", instant(at + math.max(tonumber(lost_min), wait)))
      end
      note("expired", id)
    end
  end
  for _, id in ipairs(call("ZRANGEBYSCORE", K.state .. "lost", "-inf", instant(at), "LIMIT", 0, limit)) do
    verdict(id, "lost", at, crash_limit, false)
    note("judged", id)
  end
end

for _, id in ipairs(call("ZRANGEBYSCORE", K.state .. "scheduled", "-inf", instant(at), "LIMIT", 0, limit)) do
  enqueue(id, "scheduled", at)
  note("due", id)
end

for _, state in ipairs({ "succeeded", "failed", "cancelled" }) do
  for _, id in ipairs(call("ZRANGEBYSCORE", K.state .. state, "-inf", instant(at - tonumber(keep)), "LIMIT", 0, limit)) do
    forget(id)
    note("pruned", id)
  end
end
return done
