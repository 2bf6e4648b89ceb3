-- tick: what must happen because time passed: leases that expire, verdicts that are due, jobs
-- whose time has come, records that are old. Bounded, and re-checks everything, so that any number
-- of callers is harmless. Nothing expires, is judged or pruned in the first lease-length after a new
-- Redis run id was seen, or after nobody ticked for `gap` seconds: then Redis' clock was set forward,
-- the broker was asleep or hung, or the whole fleet was away, and the hosts must get to beat first.
-- (Redis has no clock to compare: its uptime is its wall clock's too.) When several hosts seem to
-- vanish at a time, that is waited for once, too. After a step back of the clock, leases and verdicts
-- are set back with it.
--
-- The lease's times are the fleet's: a caller without its own ("") gets those of the last worker, and
-- expires nothing before there was one. `keep` and `keep_jobs` are "" for who isn't to prune.
--
-- uses: verdict forgetting
-- args: offset template lease lost_min lost_max crash_limit gap keep keep_jobs limit
-- Returns  words of what was done: "expired" id, "judged" id, "due" id, "given_up" id, "widened" id, "unclaimed" id, "pruned" id;
--          of schedules whose turn it is "recurs" name, of the next one "comes" seconds
call("ZREM", K.hosts, "")
local at = now()
local done = {}
local function note(word, id) table.insert(done, word); table.insert(done, id) end

-- fakeredis has no INFO: there the run id never changes.
local info = redis.pcall("INFO", "server")
local run_id = type(info) == "string" and info:match("run_id:(%w+)") or "-"
local meta = call("HMGET", K.meta, "run_id", "quiet_until", "brake", "ticked", "times")
local quiet_until, brake, ticked = tonumber(meta[2] or 0), tonumber(meta[3] or 0), tonumber(meta[4] or at)

if lease ~= "" then
  local times = table.concat({ lease, lost_min, lost_max, crash_limit, gap }, " ")
  if times ~= meta[5] then call("HSET", K.meta, "times", times) end
elseif meta[5] then
  lease, lost_min, lost_max, crash_limit, gap = meta[5]:match("^(%S+) (%S+) (%S+) (%S+) (%S+)$")
end
local knows_times = lease ~= ""
if knows_times then
  lease, lost_min, lost_max, gap = tonumber(lease), tonumber(lost_min), tonumber(lost_max), tonumber(gap)
end

-- Set back by `step` what was set by the old clock; what a beat has set since stays.
local function set_back(step)
  for _, state in ipairs({ "running", "lost", "scheduled" }) do
    local rows = call("ZRANGEBYSCORE", K.state .. state, "(" .. instant(at + lease), "+inf", "WITHSCORES", "LIMIT", 0, 1000)
    for i = 1, #rows, 2 do
      local id, score = rows[i], instant(math.max(at + lease, tonumber(rows[i + 1]) - step))
      -- A start time is an instant that a person named; a retry's delay isn't.
      if state ~= "scheduled" then
        call("ZADD", K.state .. state, score, id)
      elseif call("HEXISTS", K.job .. id, "reason") == 1 then
        call("ZADD", K.state .. state, score, id)
        call("HSET", K.job .. id, "due", score)
      end
    end
  end
  for _, host in ipairs(call("ZRANGEBYSCORE", K.hosts, "(" .. instant(at), "+inf", "LIMIT", 0, 1000)) do
    call("ZADD", K.hosts, instant(at), host)
    call("HSET", K.host .. host, "seen", instant(at))
  end
  for index, fields in pairs({ overflow = { "queued", "widens" }, expiring = { "created", "expires" } }) do
    for _, id in ipairs(call("ZRANGEBYSCORE", K[index], "(" .. instant(at), "+inf", "LIMIT", 0, 1000)) do
      local r = call("HMGET", K.job .. id, unpack(fields))
      if tonumber(r[1] or 0) > at and r[2] then
        call("ZADD", K[index], instant(tonumber(r[2]) - step), id)
        call("HSET", K.job .. id, fields[2], instant(tonumber(r[2]) - step))
      end
    end
  end
  -- What was dealt with in a smaller step isn't dealt with again; after a larger one the clock was wrong.
  if step > 86400 then
    for _, name in ipairs(call("ZRANGEBYSCORE", K.schedules, "(" .. instant(at), "(+inf", "LIMIT", 0, 1000)) do
      call("ZADD", K.schedules, instant(at), name)
    end
  end
end

if knows_times then
  if at < ticked then
    event("clock", "t", instant(at - ticked))
    set_back(ticked - at)
    quiet_until, brake = math.min(quiet_until, at + lease), math.min(brake, at + lease)
    call("HSET", K.meta, "quiet_until", instant(quiet_until), "brake", instant(brake))
  end
  local is_new_run = meta[1] and meta[1] ~= run_id
  if is_new_run or at - ticked > gap then
    quiet_until = at + lease
    call("HSET", K.meta, "quiet_until", instant(quiet_until))
    event("quiet", "r", is_new_run and "restart" or "gap", "t", instant(at - ticked))
  end
  call("HSET", K.meta, "run_id", run_id, "ticked", instant(at))
end

local function braked(expired)
  local hosts, count = {}, 0
  for _, id in ipairs(expired) do
    local host = redis.pcall("HGET", K.job .. id, "host") or ""
    if not hosts[host] then hosts[host] = true; count = count + 1 end
  end
  if at < brake then return true end
  if count < 2 or at < brake + 2 * lease then return false end
  call("HSET", K.meta, "brake", instant(at + lease))
  event("quiet", "r", "storm", "n", count)
  return true
end

local function expire(id)
  local r = call("HMGET", K.job .. id, "phase", "started", "host", "attempt", "state")
  if r[5] ~= "running" then
    call("ZREM", K.state .. "running", id)
  elseif r[1] == "claimed" then
    verdict(id, "running", at, crash_limit, false)
  else
    local wait = math.min(lost_max, (at - (tonumber(r[2]) or at)) / 10)
    move(id, "running", "lost", instant(at + math.max(lost_min, wait)))
    event("lost", "j", id, "h", r[3] or "", "a", r[4] or "")
  end
end

-- Do what is due of a job in this state; one whose record doesn't allow that is given up.
local function see_to(word, from, id, act)
  if not spare(act, id) then
    word = "given_up"
    if not spare(give_up, id, from, at) then call("ZREM", K.state .. from, id) end
  end
  note(word, id)
end

local function judge(id) verdict(id, "lost", at, crash_limit, false) end
local function begin(id) enqueue(id, "scheduled", at, "due") end
local function is_still(id, state)
  local its = redis.pcall("HGET", K.job .. id, "state")
  if its == state or type(its) == "table" then return true end
  call("ZREM", K.state .. state, id)
end

local is_quiet = not knows_times or at < quiet_until
if not is_quiet then
  local expired = call("ZRANGEBYSCORE", K.state .. "running", "-inf", instant(at), "LIMIT", 0, limit)
  if #expired > 0 and not braked(expired) then
    for _, id in ipairs(expired) do see_to("expired", "running", id, expire) end
  end
  for _, id in ipairs(call("ZRANGEBYSCORE", K.state .. "lost", "-inf", instant(at), "LIMIT", 0, limit)) do
    if is_still(id, "lost") then see_to("judged", "lost", id, judge) end
  end
end

for _, id in ipairs(call("ZRANGEBYSCORE", K.state .. "scheduled", "-inf", instant(at), "LIMIT", 0, limit)) do
  if is_still(id, "scheduled") then see_to("due", "scheduled", id, begin) end
end

-- Jobs that waited long enough for the host that they prefer: now any that fits takes them.
local function widen(id)
  local r = call("HMGET", K.job .. id, "state", "queue", "wide", "overflow")
  local ends = r[1] == "queued" and r[4] and paused_until(r[2], at)
  if ends then
    -- Not its host keeps it waiting: where its session is it goes on when its account is free.
    local widens = instant(ends + tonumber(r[4]))
    call("ZADD", K.overflow, widens, id)
    call("HSET", K.job .. id, "widens", widens)
  elseif r[1] == "queued" and r[4] then
    call("HDEL", K.job .. id, "wide", "overflow", "widens")
    nudge(id, requeue(id, r[2], r[3], at), r[3])
    event("widened", "j", id, "q", r[3])
    note("widened", id)
  end
end
for _, id in ipairs(call("ZRANGEBYSCORE", K.overflow, "-inf", instant(at), "LIMIT", 0, limit)) do
  call("ZREM", K.overflow, id)
  spare(widen, id)
end

-- Jobs that nobody took in time. What was claimed once has started in time, whatever came of it.
local function fail_unclaimed(id)
  local r = call("HMGET", K.job .. id, "state", "queue", "attempt", "expires")
  if r[4] and not r[3] and (r[1] == "queued" or r[1] == "waiting" or r[1] == "scheduled") then
    call("ZREM", K.queue .. r[2], id)
    conclude(id, r[1], "failed", "expired", at)
    note("unclaimed", id)
  end
end
if at >= quiet_until then
  for _, id in ipairs(call("ZRANGEBYSCORE", K.expiring, "-inf", instant(at), "LIMIT", 0, limit)) do
    call("ZREM", K.expiring, id)
    spare(fail_unclaimed, id)
  end
end

-- Whose instants those are, and which jobs, only a worker with the fleet's key can say.
for _, name in ipairs(call("ZRANGEBYSCORE", K.schedules, "-inf", instant(at), "LIMIT", 0, limit)) do
  if call("EXISTS", K.schedule .. name) == 1 then note("recurs", name) else call("ZREM", K.schedules, name) end
end
local coming = call("ZRANGEBYSCORE", K.schedules, "(" .. instant(at), instant(at + 60), "WITHSCORES", "LIMIT", 0, 1)
if coming[1] then note("comes", instant(tonumber(coming[2]) - at)) end

-- Queues of needs that nobody used for a day are forgotten.
for _, queue in ipairs(call("ZRANGEBYSCORE", K.queues, "-inf", instant(at - 86400), "LIMIT", 0, limit)) do
  if call("EXISTS", K.queue .. queue) == 1 then
    call("ZADD", K.queues, instant(at), queue)
  else
    call("ZREM", K.queues, queue)
    call("HINCRBY", K.meta, "queues", 1)
  end
end

-- The jobs that ended first, of all three sorts: those that are too old, and those too many.
local ends = { "succeeded", "failed", "cancelled" }
local function oldest()
  local rows = {}
  for _, state in ipairs(ends) do
    local found = call("ZRANGE", K.state .. state, 0, limit - 1, "WITHSCORES")
    for i = 1, #found, 2 do table.insert(rows, { found[i], tonumber(found[i + 1]) }) end
  end
  table.sort(rows, function(a, b) return a[2] < b[2] end)
  return rows
end

if keep ~= "" and not is_quiet then
  local surplus = -tonumber(keep_jobs)
  for _, state in ipairs(ends) do surplus = surplus + call("ZCARD", K.state .. state) end
  local pruned, first = 0, nil
  for _, row in ipairs(oldest()) do
    local is_old = row[2] <= at - tonumber(keep)
    if pruned >= tonumber(limit) or not (is_old or pruned < surplus) then break end
    if not spare(forget, row[1]) then call("DEL", K.job .. row[1]); spare(forget, row[1]) end
    for _, state in ipairs(ends) do call("ZREM", K.state .. state, row[1]) end
    note("pruned", row[1])
    pruned, first = pruned + 1, first or row[1]
  end
  -- One line for all of them: a large prune must not push everything else out of the trail.
  if pruned > 0 then event("pruned", "j", first, "n", pruned) end
end
return done
