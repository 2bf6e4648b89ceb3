-- forgetting: all that goes with a record.
--
-- uses: stands

-- Let go of the contents that a job used; a small one stays for an hour, should another job be about
-- to use it.
local function release_files(id)
  for _, sha256 in ipairs(call("HKEYS", K.files .. id)) do
    call("SREM", K.users .. sha256, id)
    if call("SCARD", K.users .. sha256) == 0 then call("EXPIRE", K.artifact .. sha256, 3600) end
  end
  return call("DEL", K.files .. id)
end

local function forget(id)
  local r = call("HMGET", K.job .. id, "state", "host", "name", "group", "unique", "with", "halts")
  if r[1] then call("ZREM", K.state .. r[1], id) end
  if r[2] then call("ZREM", K.by_host .. r[2], id) end
  if r[3] then call("ZREM", K.name .. r[3], id) end
  if r[4] then
    call("ZREM", K.group .. r[4], id)
    local flow = flow_of(r[4])
    if flow and call("EXISTS", K.group .. r[4]) == 0 then
      call("DEL", K.flow .. flow)
      call("ZREM", K.flows, flow)
    end
  end
  for name in (r[7] or ""):gmatch("%S+") do
    call("SREM", K.halted .. name, id)
    if call("EXISTS", K.halted .. name) == 0 then call("DEL", K.halt .. name) end
  end
  let_go(id, r[5])
  if r[6] then call("SREM", K.companions .. r[6], id) end
  -- Nobody else will know where it ran.
  for _, one in ipairs(r[2] and call("SMEMBERS", K.companions .. id) or {}) do
    local narrow = call("HGET", K.job .. one, "narrow")
    if narrow then call("HSET", K.job .. one, "queue", (narrow:gsub("HOST", r[2]))) end
    part(one, id)
  end
  call("ZREM", K.ids, id)
  call("DEL", K.job .. id, K.spec .. id, K.outcome .. id, K.late .. id, K.log .. id, K.done .. id,
    K.dependents .. id, K.companions .. id, K.followers .. id)
  call("DEL", K.answer .. id, K.checkpoint .. id)
  release_files(id)
end
