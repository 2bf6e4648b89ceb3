-- submit: store the records of new jobs and push their nudges, in one round trip.
-- Closes the race of a client that dies between record and nudge. A second submit of the same
-- spec under the same id (a lost reply) is answered "exists" and changes nothing. Of the jobs with
-- one unique key only one at a time isn't ended: a further one is answered "taken" and not stored.
--
-- `also` is "" or JSON of what these jobs have in common, stored with the first of them: halts (each a
-- name, what is counted, limit, way), flow (of a workflow's run: id, and its fields in pairs).
--
-- uses: parents
-- args: offset template key_id who also
-- rest: job spec   (per job; `job` is a JSON list, one argument because redis-py takes 2 us for each:
--       id kind queue priority due on_lost retries reply after name group unique, "" for none, and
--       where it goes by more than a queue, "" or: first (the queue that it waits in before, for
--       `overflow` seconds), with (the job whose host it wants; then on the queue `narrow`), expires,
--       ancestors (the jobs above it, the root first), most and at_once (of all below that root), any (ids
--       of jobs that only have to end), when, lenient, halts (names))
-- Returns  "wrong_key" | one word a job: "waiting" | "scheduled" | "queued" | "failed" | "succeeded" (skipped) | "cancelled" (halted, or with its workflow) | "exists" | "clash" | "no_parent" | "taken <id> <state>" | "orphan" | "many" | "crowded"
local at = now()
local known = call("HGET", K.meta, "key_id")
if known and known ~= key_id then return { "wrong_key" } end

-- Whether jobs of a group come too late: their workflow was cancelled.
local called_off = {}
local function is_called_off(group)
  if called_off[group] == nil then
    local flow = flow_of(group)
    called_off[group] = flow and call("HEXISTS", K.flow .. flow, "cancelled") == 1 or false
  end
  return called_off[group]
end

-- The first of a job's halts that has ended its members already.
local fired = {}
local function halt_of(names)
  for name in names:gmatch("%S+") do
    if fired[name] == nil then fired[name] = call("HEXISTS", K.halt .. name, "fired") == 1 end
    if fired[name] then return name end
  end
end

-- The state that a new job gets, with the reason for a final one, and what is to be waited for.
local function outlook(id, due, after, group, asked)
  local when, found, doomed = asked and asked.when, nil, false
  if after ~= "" or asked and asked.any then
    found = weigh(id, after, asked and asked.any or "")
    if not found then return nil end
  end
  if asked and asked.with then
    local r = call("HMGET", K.job .. asked.with, "state", "host")
    if not r[1] then return nil end
    if is_final(r[1]) and not r[2] then
      -- Nobody will know a host of it.
      if not when and r[1] ~= "succeeded" then doomed = true else asked.with = nil end
    end
  end
  if is_called_off(group) then return "cancelled", "user" end
  local name = asked and asked.halts and not when and halt_of(asked.halts)
  if name then return "cancelled", "halted", nil, name end
  if doomed then return "failed", "upstream" end
  if found then
    local word = turn(when, found.edges[1] ~= nil, found.fails, found.skips, found.is_doomed)
    if word == "failed" then return word, "upstream" end
    if word == "skipped" then return "succeeded", word end
    if word == "waiting" then return word, nil, found end
  elseif when == "failure" then
    return "succeeded", "skipped"
  end
  return due ~= "" and tonumber(due) > at and "scheduled" or "queued"
end

-- Why a job that a job submits may not be made, nil if it may. Here and not in a step before: so a
-- cancel that goes down a family leaves nothing behind, and no count is exceeded.
local function barred(asked)
  local root = asked.ancestors:match("%S+")
  local state
  for above in asked.ancestors:gmatch("%S+") do
    local r = call("HMGET", K.job .. above, "state", "cancel")
    state = r[1]
    if state == "cancelled" or r[2] then return "orphan" end
  end
  if state ~= "running" then return "orphan" end
  local members = call("SMEMBERS", K.family .. root)
  if #members >= tonumber(asked.most) then return "many" end
  local under_way = 0
  for _, member in ipairs(members) do
    local its = call("HGET", K.job .. member, "state")
    if its and not is_final(its) then under_way = under_way + 1 end
  end
  if under_way >= tonumber(asked.at_once) then return "crowded" end
end

-- Number a job within its name or group, in the order of submission.
local function enlist(key, id)
  local newest = call("ZREVRANGE", key, 0, 0, "WITHSCORES")
  call("ZADD", key, tonumber(newest[2] or 0) + 1, id)
end

-- What many jobs of a call add to one key goes there at its end, in one command: a quarter of the
-- time. At most two values for each of 1,000 jobs, which Lua's stack holds.
local later = {}
local function collect(command, key, first, second)
  local entry = later[key]
  if not entry then
    entry = { command, key }
    later[key] = entry
    table.insert(later, entry)
  end
  entry[#entry + 1] = first
  if second then entry[#entry + 1] = second end
end

-- Its fields, and its places in the indices that let time act on it.
local function place(id, asked, state, queue, add)
  if asked.first or asked.with then add("wide", queue) end
  if asked.with then
    add("with", asked.with)
    add("narrow", asked.narrow)
    call("SADD", K.companions .. asked.with, id)
    queue = state == "queued" and queue_beside(asked.with, asked.narrow) or "with." .. asked.with
  elseif asked.first then
    queue = asked.first
    add("overflow", asked.overflow)
    if state == "queued" then
      add("widens", instant(at + tonumber(asked.overflow)))
      call("ZADD", K.overflow, instant(at + tonumber(asked.overflow)), id)
    end
  end
  if asked.expires then
    add("expires", instant(at + tonumber(asked.expires)))
    if not is_final(state) then call("ZADD", K.expiring, instant(at + tonumber(asked.expires)), id) end
  end
  if asked.when then add("when", asked.when) end
  if asked.lenient then add("lenient", "1") end
  if asked.halts then
    add("halts", asked.halts)
    for name in asked.halts:gmatch("%S+") do collect("SADD", K.halted .. name, id) end
  end
  return queue
end

-- The nudge's template for one kind and queue, cut where the id goes.
local cut = {}
local function pieces(kind, queue)
  local both = kind .. " " .. queue
  if not cut[both] then
    local filled = template:gsub("@(%a+)", { kind = kind, queue = queue })
    local parts = {}
    for part in (filled .. "@id"):gmatch("(.-)@id") do table.insert(parts, part) end
    cut[both] = parts
  end
  return cut[both]
end

local words = {}
local made, first = 0, nil
local created = instant(at)
local nth = 0
for i = rest, #ARGV, 2 do
  local spec = ARGV[i + 1]
  local id, kind, queue, priority, due, on_lost, retries, reply, after, name, group, unique, asked =
    unpack(cjson.decode(ARGV[i]))
  local asks = asked ~= "" and asked
  local state, reason, found, halted = outlook(id, due, after, group, asks)
  local stored = call("GET", K.spec .. id)
  local refusal = asks and asks.ancestors and barred(asks)
  local holder, its_state
  if unique ~= "" then holder, its_state = holder_of(unique) end
  if stored then
    table.insert(words, stored == spec and "exists" or "clash")
  elseif holder then
    table.insert(words, "taken " .. holder .. " " .. its_state)
  elseif not state then
    table.insert(words, "no_parent")
  elseif refusal then
    table.insert(words, refusal)
  else
    -- The first write is one that Redis refuses when it is out of memory: then nothing is stored.
    call("SET", K.spec .. id, spec)
    local fields = { "state", state, "kind", kind, "priority", priority, "created", created }
    local function add(name, value) table.insert(fields, name); table.insert(fields, value) end
    if asks then queue = place(id, asks, state, queue, add) end
    add("queue", queue)
    if on_lost ~= "retry" then add("on_lost", on_lost) end
    if retries ~= "0" then add("retries", retries) end
    if due ~= "" and state ~= "queued" then add("due", due) end
    if found then
      add("waits", #found.edges)
      if found.fails then add("fails", "1") end
      if found.skips then add("skips", "1") end
    end
    if state == "queued" then add("queued", created) end
    if reason then add("reason", reason); add("finished", created) end
    if halted then add("halted", halted) end
    if name ~= "" then add("name", name); enlist(K.name .. name, id) end
    if group ~= "" then add("group", group); enlist(K.group .. group, id) end
    if unique ~= "" then
      add("unique", unique)
      if not reason then call("SET", K.unique .. unique, id) end
    end
    call("HSET", K.job .. id, unpack(fields))
    if asks and asks.ancestors then
      local family = K.family .. asks.ancestors:match("%S+")
      call("SADD", family, id)
      call("EXPIRE", family, 2592000)
    end
    collect("ZADD", K.ids, 0, id)
    collect("LPUSH", K.recent, id)
    collect("ZADD", K.state .. state, state == "scheduled" and due or created, id)
    for _, edge in ipairs(found and found.edges or {}) do call("SADD", K.dependents .. edge[1], edge[2]) end
    if reason then announce(id, state) end
    if reply ~= "" then
      call("SADD", K.followers .. id, reply)
      call("EXPIRE", K.followers .. id, 604800)
    end
    if state == "queued" then
      collect("ZADD", K.queue .. queue, position(priority, created, nth), id)
      if is_of_needs(queue) then
        if not woken[queue] then open_queue(queue, at); wake(queue, at) end
      elseif queue:sub(1, 5) ~= "with." then
        collect("LPUSH", K.nudges .. queue, table.concat(pieces(kind, queue), id))
      end
      nth = nth + 1
    end
    made = made + 1
    if made == 1 then first = { "j", id, "s", state, "q", queue } end
    table.insert(words, state)
  end
end
for _, entry in ipairs(later) do call(unpack(entry)) end

-- What the jobs have in common. The time is renewed by every end, and all goes with the last of them.
local common = made > 0 and also ~= "" and cjson.decode(also) or {}
for _, one in ipairs(common.halts or {}) do
  local name, counted, limit, way = unpack(one)
  if call("EXISTS", K.halted .. name) == 1 and call("EXISTS", K.halt .. name) == 0 then
    call("HSET", K.halt .. name, "counted", counted, "limit", limit, "way", way, "count", 0)
  end
end
if common.flow and call("EXISTS", K.group .. "flow-" .. common.flow.id) == 1 then
  call("HSET", K.flow .. common.flow.id, "created", created, unpack(common.flow.fields))
  call("ZADD", K.flows, created, common.flow.id)
end
for _, entry in ipairs(later) do
  if entry[1] == "SADD" then
    call("EXPIRE", entry[2], 7776000)
    call("EXPIRE", K.halt .. entry[2]:sub(#K.halted + 1), 7776000)
  end
end
if later[K.recent] then call("LTRIM", K.recent, 0, 999) end
-- One line a call, of its first job: it costs nothing, and many jobs don't push all else out.
if made > 0 then event("submitted", "n", made, "w", who, unpack(first)) end
if not known and #words > 0 then call("HSET", K.meta, "key_id", key_id) end
return words
