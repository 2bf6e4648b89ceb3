-- rerun: what failed, was cancelled or comes after such a job runs again, for a person; of these jobs only,
-- and not what would fail at once, by a job that isn't one of them.
-- All of it in one step, so that nobody sees half a graph: they wait again for those of them that they
-- come after, or are queued. Refused while one of them isn't ended, may still run on a host that was
-- judged lost, unless the person says that it is gone (force), or its unique key is another job's.
-- A job that became others collects them again, if only they failed; where it may become others now, since
-- it comes after a job that runs again, those that it became are forgotten. `consent` is the person's signed word for
-- all of them, if there is one.
--
-- uses: ends parents forgetting again
-- args: offset template flow force consent who
-- rest: id consent   (in pairs, each after those that it comes after)
-- Returns  "ok", the ids that run again ... | "unfit", id, state | "orphan", id, host | "taken", id, other
local at = now()

-- What a job's spec says that it comes after, as texts of ids.
local function parents_of(id)
  local spec = call("GET", K.spec .. id)
  local is_read, said = pcall(cjson.decode, spec and spec:match("^%S+ %S+ (.*)$") or "")
  if not is_read or type(said) ~= "table" then return "", "" end
  return table.concat(said.after or {}, " "), table.concat(said.after_any or {}, " ")
end

local chosen, order, forgotten, keys = {}, {}, {}, {}
local function has_chosen(ids)
  for id in ids:gmatch("%S+") do
    if chosen[id] then return true end
  end
end

-- Whether a job would fail at once, by one that doesn't run again.
local function is_doomed(ids)
  for id in ids:gmatch("%S+") do
    local r = call("HMGET", K.job .. id, "state", "reason", "lenient")
    if r[1] and is_final(r[1]) and not chosen[id] then
      local as = stands(r[1], r[2], r[3])
      if as == "failed" or as == "cancelled" then return true end
    end
  end
end

local refusal
local function look(id)
  if chosen[id] or forgotten[id] then return end
  local r = call("HMGET", K.job .. id, "state", "fanned", "orphan", "unique", "when", "halts")
  local state = r[1]
  if not state then return end
  local after, any = parents_of(id)
  local is_again = has_chosen(after) or has_chosen(any)
  local fanned = r[2] or ""
  if fanned ~= "" and is_again then
    for child in fanned:gmatch("%S+") do
      local its = call("HGET", K.job .. child, "state")
      if its and not is_final(its) then refusal = { "unfit", child, its } end
      forgotten[child] = true
    end
    fanned = ""
  end
  for child in fanned:gmatch("%S+") do
    look(child)
    if chosen[child] then is_again = true end
  end
  if not is_again and state ~= "failed" and state ~= "cancelled" then return end
  if not r[5] and fanned == "" and is_doomed(after) then return end
  if not is_final(state) then refusal = refusal or { "unfit", id, state } end
  local host = r[3] and force == "" and orphaned_on(r[3])
  if host then refusal = refusal or { "orphan", id, host } end
  local holder = r[4] and (keys[r[4]] or holder_of(r[4]))
  if holder and holder ~= id then refusal = refusal or { "taken", id, holder } end
  if r[4] then keys[r[4]] = id end
  chosen[id] = { state = state, after = after, any = any, fanned = fanned, unique = r[4], when = r[5], halts = r[6] }
  table.insert(order, id)
end
local consents = {}
for i = rest, #ARGV, 2 do
  consents[ARGV[i]] = ARGV[i + 1]
  look(ARGV[i])
end
if refusal then return refusal end

-- First a write that Redis refuses when it is out of memory: then nothing is half done.
if order[1] then call("HSET", K.job .. order[1], "queued", instant(at)) end
if flow ~= "" then call("HDEL", K.flow .. flow, "cancelled") end
for child in pairs(forgotten) do forget(child) end

-- All of them wait first: so each knows of those before it that they are to run.
local names = {}
for nth, id in ipairs(order) do
  local one = chosen[id]
  call("HSET", K.job .. id, "queued", instant(at + nth / 1e6))
  call("HDEL", K.job .. id, "cancel", "halted", "exit", "signal", "losses", "unstarted", "failures", "orphan", "ended_by",
    "note", "expires", "reason", "started", "finished", "due", "skips", "fails")
  call("HSET", K.job .. id, "consent", consent ~= "" and consent or consents[id] or "")
  if one.fanned == "" then call("HDEL", K.job .. id, "fanned") end
  if one.unique then call("SET", K.unique .. one.unique, id) end
  call("DEL", K.done .. id)
  move(id, one.state, "waiting", instant(at))
  for name in (one.halts or ""):gmatch("%S+") do names[name] = true end
end
for name in pairs(names) do recount(name) end

local words, ended = { "ok" }, {}
for _, id in ipairs(order) do
  local one = chosen[id]
  local found, word
  if one.fanned ~= "" then
    found = weigh(id, "", one.fanned, function() return false end, "+")
    word = found.edges[1] and "waiting" or "ready"
  else
    found = weigh(id, one.after, one.any, function() return false end)
    word = turn(one.when, found.edges[1] ~= nil, found.fails, found.skips, found.is_doomed)
  end
  if word == "waiting" then
    call("HSET", K.job .. id, "waits", #found.edges)
    if found.fails then call("HSET", K.job .. id, "fails", "1") end
    if found.skips then call("HSET", K.job .. id, "skips", "1") end
    for _, edge in ipairs(found.edges) do call("SADD", K.dependents .. edge[1], edge[2]) end
    -- Should it be skipped now, nobody is to take what it did before for what it did now.
    if one.fanned == "" then call("DEL", K.outcome .. id) end
  elseif word == "ready" then
    enqueue(id, "waiting", at, "retried", "s", one.state, "w", who)
  else
    table.insert(ended, settle(id, "waiting", "succeeded", "skipped", at))
  end
  table.insert(words, id)
end
run_down(ended, at)
if order[1] then event("rerun", "j", order[1], "n", #order, "w", who) end
return words
