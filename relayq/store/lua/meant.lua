-- meant: find the jobs of a state that one host alone may take, the newest first, in a part of its
-- index. It writes nothing; here and not at who asks, since to send 5,000 ids and queues takes ten
-- times as long as to compare them. One by one, and not by SORT and its GET: Redis refuses these to a
-- user that may not read every key.
--
-- args: offset state host start count
-- Returns  how many it looked at, id, id, ...
local looked = call("ZREVRANGE", K.state .. state, start, start + count - 1)
local found = { #looked }
for _, id in ipairs(looked) do
  local queue = redis.pcall("HGET", K.job .. id, "queue")
  if type(queue) ~= "string" then queue = "" end
  if queue == "host." .. host or queue:match("[.,]on=([^,|]*)$") == host then found[#found + 1] = id end
end
return found
