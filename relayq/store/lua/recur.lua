-- recur: take a schedule's turn: submit the jobs that are due, cancel those that they replace, and say
-- when it comes next. One step, so that of two workers the second finds the schedule changed, one that
-- dies has done all of it or nothing, and nothing starts after a pause or an end was answered.
-- Goes on as `submit`, with its arguments.
--
-- uses: ends
-- args: offset schedule known_turn upcoming due seen missed left_out runs last recent going needs cancels acts
-- then: submit
-- Returns  "gone" | "changed" | the words of `submit`
do
  local key = K.schedule .. schedule
  local its = call("HMGET", key, "uid", "turn")
  if not its[1] then return { "gone" } end
  if its[1] .. " " .. its[2] ~= known_turn then return { "changed" } end
  for id in needs:gmatch("%S+") do
    if call("EXISTS", K.job .. id) == 0 then return { "changed" } end
  end
  local its_key = call("HGET", K.meta, "key_id")
  if its_key and its_key ~= key_id then return { "wrong_key" } end
  -- The first write is one that Redis refuses when it is out of memory.
  call("HSET", key, "going", going)
  call("HINCRBY", key, "turn", 1)
  call("HDEL", key, "next", "due", "trouble")
  if upcoming ~= "" then call("HSET", key, "next", upcoming, "due", due) end
  if seen ~= "" then call("HSET", key, "seen", seen) end
  for field, count in pairs({ runs = runs, missed = missed, left_out = left_out }) do
    if count ~= "0" then call("HINCRBY", key, field, count) end
  end
  if runs ~= "0" then call("HSET", key, "last", last, "recent", recent) end
  local is_paused = call("HEXISTS", key, "paused") == 1
  call("ZADD", K.schedules, (is_paused or due == "") and "+inf" or due, schedule)
  if missed ~= "0" then event("missed", "l", schedule, "n", missed) end
  if left_out ~= "0" then event("left_out", "l", schedule, "n", left_out) end
  local at, ended = now(), {}
  for run in cancels:gmatch("%S+") do
    -- A job, or a workflow's run.
    local members = call("ZRANGE", K.group .. "flow-" .. run, 0, -1)
    if not members[1] then members = { run } end
    if call("EXISTS", K.flow .. run) == 1 then call("HSET", K.flow .. run, "cancelled", instant(at)) end
    event("cancelled", "j", members[1], "n", #members, "w", acts, "r", "replaced")
    for _, id in ipairs(members) do call_off(id, at, nil, ended) end
  end
  run_down(ended, at)
end
