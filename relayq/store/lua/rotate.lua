-- rotate: the fleet goes on with another key. What came after each key stays, sealed under that one, so that
-- a machine that was away finds its way; schedules are signed anew in the same step, if none has changed.
--
-- args: offset key_id new_id sealed count who
-- rest: name before after   (schedules)
-- Returns  "rotated" | "wrong_key" | "changed"
local known = call("HGET", K.meta, "key_id")
if known and known ~= key_id then return "wrong_key" end
-- One that is new would be left with the old key's signature.
if call("ZCARD", K.schedules) ~= tonumber(count) then return "changed" end
for i = rest, #ARGV, 3 do
  if call("HGET", K.schedule .. ARGV[i], "signed") ~= ARGV[i + 1] then return "changed" end
end
for i = rest, #ARGV, 3 do call("HSET", K.schedule .. ARGV[i], "signed", ARGV[i + 2]) end
call("HSET", K.meta, "key_id", new_id, "key:" .. key_id, sealed)
event("rotated", "w", who)
return "rotated"
