-- refuse_schedule: note why a worker can't take a schedule's turn; `for_good` where no worker will,
-- since it isn't what a person signed.
--
-- args: offset name known_turn why for_good
-- Returns  "noted" | "changed"
call("ZREM", K.hosts, "")
local key = K.schedule .. name
local its = call("HMGET", key, "uid", "turn")
if not its[1] or its[1] .. " " .. its[2] ~= known_turn then return "changed" end
if for_good ~= "" then
  call("HSET", key, "refused", why)
  call("ZADD", K.schedules, "+inf", name)
  event("refused", "l", name, "r", why)
else
  call("HSET", key, "trouble", why)
end
return "noted"
