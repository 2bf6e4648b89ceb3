-- parents: how it stands with the jobs that one comes after.
--
-- uses: stands

-- How it stands with the jobs that one comes after: those of `after`, and of `any`, which only have to
-- end. Both are ids with spaces between. An edge is the child's id, with a `mark` before it if any end
-- will do: ~, or + of a job that waits for those that it became. `missing` says of a parent without a
-- record whether it is yet to end; nil if that can't be.
-- Returns nil for an unknown parent, else { edges = { parent, ... }, fails, skips, is_doomed }.
local function weigh(id, after, any, missing, mark)
  local found, seen = { edges = {} }, {}
  local function look(parent, edge)
    if seen[parent] then return true end
    seen[parent] = true
    local r = call("HMGET", K.job .. parent, "state", "reason", "lenient")
    if not r[1] then
      local waits = missing and missing(parent, edge)
      if waits == nil then return false end
      if waits then table.insert(found.edges, { parent, edge }) end
    elseif not is_final(r[1]) then
      table.insert(found.edges, { parent, edge })
    elseif edge == id then
      local as = stands(r[1], r[2], r[3])
      if as == "failed" then found.fails = true end
      if as == "skipped" then found.skips = true end
      if as == "failed" or as == "cancelled" then found.is_doomed = true end
    end
    return true
  end
  for parent in after:gmatch("%S+") do
    if not look(parent, id) then return nil end
  end
  for parent in any:gmatch("%S+") do
    if not look(parent, (mark or "~") .. id) then return nil end
  end
  return found
end
