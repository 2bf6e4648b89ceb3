-- sweep: make a few keys agree with the records again, whatever damaged them.
-- The record is the truth. `index` says what the members are: "job": ids, of which each record is
-- entered in every index that it belongs to, and what a lost record left is deleted; else members of
-- that index (`suffix`: which one), of which those go that no record has there. Jobs that came after a
-- lost one, or waited for its host, fail. A host goes that nobody has seen for 90 days and that no job is about.
--
-- uses: ends parents forgetting
-- args: offset template lease index suffix
-- rest: members
-- Returns  what was mended: "unfit" (nothing could be done) | "entered" | "removed" | "deleted" | "failed" | "dropped", and its name, ...
call("ZREM", K.hosts, "")
local at = now()
local done = {}
local function note(word, name) table.insert(done, word); table.insert(done, name) end

local function numbered(key, id)
  local newest = call("ZREVRANGE", key, 0, 0, "WITHSCORES")
  return tonumber(newest[2] or 0) + 1
end

-- What a record that is gone left behind.
local function delete(id)
  local left = { K.spec .. id, K.outcome .. id, K.late .. id, K.log .. id, K.done .. id,
    K.dependents .. id, K.companions .. id, K.followers .. id }
  local listed = call("ZREM", K.ids, id)
  -- As long as a parent's set names it, a child still waits for that parent.
  run_down({ { id = id, state = "failed", as = "failed", reason = "lost" } }, at)
  listed = listed + call("DEL", K.answer .. id) + release_files(id)
  if call("DEL", unpack(left)) + listed > 0 then note("deleted", id) end
end

-- A job that waits: for whom, and is that still so?
local function rewait(id)
  local spec = call("GET", K.spec .. id)
  local is_read, said = pcall(cjson.decode, spec and spec:match("^%S+ %S+ (.*)$") or "")
  if not is_read or type(said) ~= "table" then return end
  local r = call("HMGET", K.job .. id, "waits", "when", "fanned", "fails", "skips")
  local after, any = table.concat(said.after or {}, " "), table.concat(said.after_any or {}, " ")
  if r[3] then after, any = "", r[3] end
  local function awaits(parent, edge) return call("SISMEMBER", K.dependents .. parent, edge) == 1 end
  -- Of a parent that is gone the set tells whether it had ended: then it is gone, too.
  local found = weigh(id, after, any, awaits, r[3] and "+")
  for _, edge in ipairs(found.edges) do
    if call("EXISTS", K.job .. edge[1]) == 1 and call("SADD", K.dependents .. edge[1], edge[2]) == 1 then note("entered", id) end
  end
  local left = #found.edges
  local word = r[3] and (left > 0 and "waiting" or "ready")
    or turn(r[2], left > 0, found.fails or r[4], found.skips or r[5], found.is_doomed)
  if word == "waiting" then
    local is_new = r[1] ~= tostring(left)
    if is_new then call("HSET", K.job .. id, "waits", left) end
    for field, before in pairs({ fails = r[4], skips = r[5] }) do
      if found[field] and not before then is_new = call("HSET", K.job .. id, field, "1") end
    end
    if is_new then note("entered", id) end
  elseif word == "ready" then
    enqueue(id, "waiting", at, "ready")
    note("entered", id)
  elseif word == "skipped" then
    conclude(id, "waiting", "succeeded", "skipped", at)
    note("entered", id)
  else
    conclude(id, "waiting", "failed", "upstream", at)
    note("failed", id)
  end
end

-- A job that is to run on another one's host: is it on the queue of that?
local function rejoin(id, state, queue, with, narrow)
  local beside = queue_beside(with, narrow)
  if not beside and (state ~= "queued" or queue:sub(1, 5) == "with.") then
    call("ZREM", K.queue .. queue, id)
    conclude(id, state, "failed", "upstream", at)
    note("failed", id)
    return true
  elseif beside and state == "queued" and queue ~= beside then
    nudge(id, requeue(id, queue, beside, at), beside)
    note("entered", id)
  end
end

local function is_held(state) return state == "running" or state == "lost" end

-- What a running or lost job of an agent holds besides its slot.
local function enter_agents_part(id)
  local r = call("HMGET", K.job .. id, "account", "asks", "question", "asked_at")
  if r[1] and call("SADD", K.account_active .. r[1], id) == 1 then note("entered", id) end
  if r[2] and r[3] and call("ZADD", K.asking, "NX", r[4] or instant(at), id) == 1 then note("entered", id) end
end

local function check_agents_member(id)
  local r = call("HMGET", K.job .. id, "state", "account", "asks", "question")
  local is_account = index == "account_active"
  if r[1] and is_held(r[1]) and (is_account and r[2] == suffix or not is_account and r[3] and r[4]) then return end
  if call(is_account and "SREM" or "ZREM", K[index] .. suffix, id) == 1 then note("removed", id) end
end

local function enter(id)
  if not is_hash(K.job .. id) then call("DEL", K.job .. id) end
  local r = call("HMGET", K.job .. id, "state", "host", "queue", "priority", "kind", "name", "group",
    "unique", "created", "queued", "claimed", "due", "finished", "widens", "expires", "attempt", "with", "narrow", "halts")
  local state, host, queue = r[1], r[2], r[3]
  if not state then
    call("DEL", K.job .. id)
    return delete(id)
  end
  local function add(key, score)
    if call("ZADD", key, "NX", score, id) == 1 then note("entered", id); return true end
  end
  add(K.ids, 0)
  local since = is_final(state) and r[13] or state == "scheduled" and r[12] or r[9]
  if is_held(state) then since = instant(at + tonumber(lease)) end
  add(K.state .. state, since or instant(at))
  local waits = state == "queued" or state == "waiting" or state == "scheduled"
  if r[17] and call("EXISTS", K.job .. r[17]) == 1 and call("SADD", K.companions .. r[17], id) == 1 then note("entered", id) end
  if r[6] then add(K.name .. r[6], numbered(K.name .. r[6], id)) end
  if r[7] then add(K.group .. r[7], numbered(K.group .. r[7], id)) end
  if waits and r[17] and rejoin(id, state, queue, r[17], r[18]) then return end
  queue = call("HGET", K.job .. id, "queue")
  if state == "queued" then
    local is_new = add(K.queue .. queue, position(r[4], r[10] or at))
    if is_of_needs(queue) and not call("ZSCORE", K.queues, queue) then
      open_queue(queue, at)
      note("entered", id)
      is_new = true
    end
    if is_new then nudge(id, r[5], queue) end
    if r[14] then add(K.overflow, r[14]) end
  end
  if waits and r[15] and not r[16] then add(K.expiring, r[15]) end
  if host then
    add(K.by_host .. host, r[11] or instant(at))
    if is_held(state) and call("SADD", K.active .. host, id) == 1 then note("entered", id) end
  end
  if r[8] and not is_final(state) and call("SET", K.unique .. r[8], id, "NX") then note("entered", id) end
  if is_held(state) then enter_agents_part(id) end
  for name in (r[19] or ""):gmatch("%S+") do
    if call("EXISTS", K.halt .. name) == 1 and call("SADD", K.halted .. name, id) == 1 then
      call("EXPIRE", K.halted .. name, 7776000)
      note("entered", id)
    end
  end
  if state == "waiting" then rewait(id) end
end

-- Whether a record has its job in this index.
local belongs = {
  ids = function(r) return r[1] end,
  state = function(r) return r[1] == suffix end,
  queue = function(r) return r[1] == "queued" and r[3] == suffix end,
  active = function(r) return is_held(r[1]) and r[2] == suffix end,
  by_host = function(r) return r[1] and r[2] == suffix end,
  name = function(r) return r[4] == suffix end,
  group = function(r) return r[5] == suffix end,
  companions = function(r) return r[6] == suffix end,
  halted = function(r) return r[10] and (" " .. r[10] .. " "):find(" " .. suffix .. " ", 1, true) end,
  overflow = function(r) return r[1] == "queued" and r[7] end,
  users = function(r) return r[1] end,
  expiring = function(r) return r[8] and not r[9] and (r[1] == "queued" or r[1] == "waiting" or r[1] == "scheduled") end,
}

local function check_member(id)
  local r = call("HMGET", K.job .. id, "state", "host", "queue", "name", "group", "with", "widens", "expires", "attempt", "halts")
  if belongs[index](r) then return end
  local is_set = index == "active" or index == "companions" or index == "users" or index == "halted"
  -- It may have left by itself since the index was read.
  if call(is_set and "SREM" or "ZREM", K[index] .. suffix, id) == 0 then return end
  if index == "users" and call("SCARD", K.users .. suffix) == 0 then call("EXPIRE", K.artifact .. suffix, 3600) end
  if index == "halted" and call("EXISTS", K.halted .. suffix) == 0 then call("DEL", K.halt .. suffix) end
  note("removed", id)
end

-- A run of a workflow is there as long as one of its jobs is.
local function check_flow(id)
  if call("EXISTS", K.group .. "flow-" .. id) == 0 or call("EXISTS", K.flow .. id) == 0 then
    if call("DEL", K.flow .. id) + call("ZREM", K.flows, id) > 0 then note("removed", id) end
  elseif call("ZADD", K.flows, "NX", call("HGET", K.flow .. id, "created") or instant(at), id) == 1 then
    note("entered", id)
  end
end

local function check_host(name)
  if not is_hash(K.host .. name) then call("DEL", K.host .. name) end
  local seen = tonumber(call("HGET", K.host .. name, "seen"))
  if seen and seen > at - 7776000 then
    if call("ZADD", K.hosts, "NX", instant(seen), name) == 1 then note("entered", name) end
    return
  end
  local jobs = call("SCARD", K.active .. name) + call("ZCARD", K.by_host .. name) + call("ZCARD", K.queue .. "host." .. name)
  if seen and jobs > 0 then return end
  call("ZREM", K.hosts, name)
  call("DEL", K.host .. name, K.control .. name)
  if jobs == 0 then call("DEL", K.nudges .. "host." .. name) end
  event("dropped", "h", name)
  note("dropped", name)
end

local function mend(member)
  if index == "job" then
    enter(member)
  elseif index == "flow" or index == "flows" then
    check_flow(member)
  elseif index == "hosts" or index == "host" then
    check_host(member)
  elseif index == "account_active" or index == "asking" then
    check_agents_member(member)
  elseif index == "queues" then
    -- One that is empty goes by itself, a day after its last use.
    if not is_of_needs(member) and call("ZREM", K.queues, member) == 1 then
      call("HINCRBY", K.meta, "queues", 1)
      note("removed", member)
    end
  elseif index == "unique" then
    local id = call("GET", K.unique .. member)
    local r = call("HMGET", K.job .. (id or ""), "state", "unique")
    if id and (not r[1] or r[2] ~= member or is_final(r[1])) then
      call("DEL", K.unique .. member)
      note("removed", id)
    end
  else
    check_member(member)
  end
end

for i = rest, #ARGV do
  -- What a record or an index says may be no score, or no hash at all.
  if not spare(mend, ARGV[i]) then note("unfit", ARGV[i]) end
end
if #done > 0 then event("mended", "j", done[2], "n", #done / 2) end
return done
