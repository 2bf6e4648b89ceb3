-- ends: what becomes of a job that ends, of those that come after it, and of those that end with it.
--
-- uses: stands

-- Give a job its final or parked state. Returns what `run_down` asks of an end.
local function settle(id, from, to, reason, at, outcome)
  move(id, from, to, instant(at))
  local r = call("HMGET", K.job .. id, "unique", "host", "attempt", "exit", "signal", "widens", "expires", "halts",
    "lenient", "fanned")
  if is_final(to) then let_go(id, r[1]) end
  -- What has succeeded begins afresh, should a person queue it again.
  if to == "succeeded" then call("DEL", K.checkpoint .. id) end
  rest_from_time(id, r[6], r[7])
  call("HSET", K.job .. id, "reason", reason, "finished", instant(at))
  announce(id, to, outcome)
  local said = { "j", id, "s", to, "r", reason }
  local function add(key, value)
    if value then table.insert(said, key); table.insert(said, value) end
  end
  if from == "running" or from == "lost" then
    add("h", r[2]); add("a", r[3]); add("x", r[4]); add("g", r[5])
  end
  event(is_final(to) and "ended" or "parked", unpack(said))
  return { id = id, state = to, as = stands(to, reason, r[9]), reason = reason, host = r[2], halts = r[8],
    fanned = to ~= "succeeded" and r[10] }
end

-- Tell a running job's host to end it: by its record, kept until the host obeys, and at once by its
-- control list. Returns whether nobody had before; `halt` is what wants it, if that isn't a person.
local function ask_to_end(id, host, at, halt)
  local is_new = call("HSETNX", K.job .. id, "cancel", instant(at)) == 1
  if is_new and halt then call("HSET", K.job .. id, "halted", halt) end
  call("RPUSH", K.control .. host, cjson.encode({ op = "cancel", job = id }))
  call("LTRIM", K.control .. host, -1000, -1)
  call("EXPIRE", K.control .. host, 120)
  return is_new
end

-- Why a running job that was asked to end is cancelled.
local function reason_of_cancel(id)
  return call("HEXISTS", K.job .. id, "halted") == 1 and "halted" or "user"
end

-- Cancel a job that isn't running, or ask the host that runs it; `halt` as above. Ends are added to
-- `ended`, for `run_down`. Returns "cancelled", "asked" and the host, or the state that it ended in.
local function call_off(id, at, halt, ended)
  local r = call("HMGET", K.job .. id, "state", "host", "queue")
  local state = r[1]
  if not state or is_final(state) then return state or "gone" end
  if state == "running" or state == "lost" then
    return "asked", r[2], ask_to_end(id, r[2], at, halt)
  end
  if state == "queued" then call("ZREM", K.queue .. r[3], id) end
  if state == "needs_human" then close_question(id) end
  if halt then call("HSET", K.job .. id, "halted", halt) end
  table.insert(ended, settle(id, state, "cancelled", halt and "halted" or "user", at))
  return "cancelled"
end

-- Do all that follows from ends, as `settle` returned them, and from what ends by that. What comes
-- after them goes before the halts: it says more to have failed with one's parent. The functions are
-- made here, where they are needed: most ends have no followers.
local function run_down(ended, at)
  -- Have a job that waited for others go on: all of them have ended.
  local function let_go_on(id)
    local due = call("HGET", K.job .. id, "due")
    if due and tonumber(due) > at then
      call("HDEL", K.job .. id, "waits", "skips", "fails")
      move(id, "waiting", "scheduled", due)
    else
      enqueue(id, "waiting", at, "ready")
    end
  end

  -- Release, fail or skip a job that comes after an end.
  local function follow(edge, parent)
    local child, as, mark = edge, parent.as, edge:sub(1, 1)
    if mark == "~" or mark == "+" then child, as = edge:sub(2), "good" end
    local r = call("HMGET", K.job .. child, "state", "when", "fanned", "fails", "skips")
    -- One that a person had run too early, and that waits again now, waits for others.
    if r[1] ~= "waiting" or (r[3] ~= false) ~= (mark == "+") then return end
    local fails, skips = r[4] or as == "failed", r[5] or as == "skipped"
    local left = call("HINCRBY", K.job .. child, "waits", -1)
    local is_doomed = as == "failed" or as == "cancelled"
    local word = r[3] and (left > 0 and "waiting" or "ready") or turn(r[2], left > 0, fails, skips, is_doomed)
    if word == "waiting" then
      if fails and not r[4] then call("HSET", K.job .. child, "fails", "1") end
      if skips and not r[5] then call("HSET", K.job .. child, "skips", "1") end
    elseif word == "ready" then
      let_go_on(child)
    elseif word == "skipped" then
      table.insert(ended, settle(child, "waiting", "succeeded", "skipped", at))
    else
      table.insert(ended, settle(child, "waiting", "failed", "upstream", at))
    end
  end

  local function release(parent)
    local edges = call("SMEMBERS", K.dependents .. parent.id)
    if not edges[1] then return end
    -- Whoever is named there waits for this job: it may end again.
    call("DEL", K.dependents .. parent.id)
    for _, edge in ipairs(edges) do spare(follow, edge, parent) end
  end

  -- The host of a job that ran is known, and those beside it need nothing else of it. Where none will be
  -- known, they fail; those that run after a failure as well, or after a job that was skipped, go anywhere.
  local function leave_companions(one)
    local companions = call("SMEMBERS", K.companions .. one.id)
    if not companions[1] or one.host then return end
    local function leave(id)
      local waits, state, queue = waits_beside(id, one.id)
      if waits and (one.as == "skipped" or call("HEXISTS", K.job .. id, "when") == 1) then
        local wide = call("HGET", K.job .. id, "wide")
        part(id, one.id)
        if state == "queued" then
          nudge(id, requeue(id, queue, wide, at), wide)
        else
          call("HSET", K.job .. id, "queue", wide)
        end
      elseif waits then
        call("ZREM", K.queue .. queue, id)
        table.insert(ended, settle(id, state, "failed", "upstream", at))
      end
    end
    for _, id in ipairs(companions) do spare(leave, id) end
  end

  -- End the other members of a halt. What runs after a failure, or always, is spared.
  local function halt(name, way, one)
    call("HSET", K.halt .. name, "fired", instant(at))
    event("halted", "j", one.id, "r", name)
    local function stop(id)
      local r = call("HMGET", K.job .. id, "state", "when", "fanned")
      local waits = r[1] == "scheduled" or r[1] == "queued" or r[1] == "waiting"
      -- What waits for the jobs that it became has begun.
      if r[3] and way == "soon" then waits = false end
      if id ~= one.id and not r[2] and (waits or way == "now") then call_off(id, at, name, ended) end
    end
    for _, id in ipairs(call("SMEMBERS", K.halted .. name)) do spare(stop, id) end
  end

  local function count_halts(one)
    for name in one.halts:gmatch("%S+") do
      local key = K.halt .. name
      local h = call("HMGET", key, "counted", "limit", "way", "fired")
      if h[1] and is_counted(h[1], one) then
        call("EXPIRE", key, 7776000)
        call("EXPIRE", K.halted .. name, 7776000)
        if call("HINCRBY", key, "count", 1) >= tonumber(h[2]) and not h[4] then halt(name, h[3], one) end
      end
    end
  end

  local counted = {}
  while true do
    local one = table.remove(ended)
    if one and one.state ~= "needs_human" then
      release(one)
      leave_companions(one)
      for child in (one.fanned or ""):gmatch("%S+") do
        spare(call_off, child, at, one.reason == "halted" and call("HGET", K.job .. one.id, "halted"), ended)
      end
      if one.halts then table.insert(counted, one) end
    elseif counted[1] then
      count_halts(table.remove(counted, 1))
    elseif not one then
      return
    end
  end
end

-- Give up a job of whose record nothing else can come: nobody waits for it any more, and it is in the
-- way of no other one.
local function give_up(id, from, at)
  if not is_hash(K.job .. id) then call("DEL", K.job .. id) end
  local host = call("HGET", K.job .. id, "host")
  if from == "running" or from == "lost" then spare(leave_host, id, host) end
  call("ZREM", K.state .. from, id)
  if call("HGET", K.job .. id, "state") == from then
    local one = settle(id, from, "failed", "refused", at)
    run_down({ one }, at)
  end
end

-- Give a job its final or parked state, with all that follows.
local function conclude(id, from, to, reason, at, outcome)
  local one = settle(id, from, to, reason, at, outcome)
  local is_alone = one.host and not one.halts and not one.fanned
  if to == "needs_human" or is_alone and call("EXISTS", K.dependents .. id) == 0 then return end
  run_down({ one }, at)
end
