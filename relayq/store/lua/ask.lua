-- ask: note what a running job asks a person, and hear what was replied.
-- Comes with every beat as long as the question stands, so that neither a lost answer nor a lost
-- message matters. A question of "" says that it stands no longer.
--
-- args: offset id attempt uid question text choices
-- Returns  "asked" | "answered", the signed reply | "closed" | "stale"
call("ZREM", K.hosts, "")
if check(id, attempt, uid) ~= "current" then return { "stale" } end
local r = call("HMGET", K.job .. id, "asks", "host")
if question == "" then
  if r[1] then close_question(id) end
  return { "closed" }
end
if r[1] == question then
  local reply = call("GET", K.answer .. id)
  if reply then return { "answered", reply } end
  return { "asked" }
end
local at = now()
close_question(id)
call("HSET", K.job .. id, "asks", question, "question", text, "choices", choices, "asked_at", instant(at))
call("ZADD", K.asking, instant(at), id)
event("asking", "j", id, "h", r[2], "a", attempt)
return { "asked" }
