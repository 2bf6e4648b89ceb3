-- meant: find the jobs of a state that one host alone may take, the newest first, in a part of its
-- index. It writes nothing; here and not at who asks, since to send 5,000 ids and queues takes ten
-- times as long as to compare them.
--
-- args: offset state host start count
-- Returns  how many it looked at, id, id, ...
local looked = call("SORT", K.state .. state, "BY", "nosort", "GET", "#", "GET", K.job .. "*->queue",
  "DESC", "LIMIT", start, count)
local found = { #looked / 2 }
for i = 1, #looked, 2 do
  local queue = looked[i + 1] or ""
  if queue == "host." .. host or queue:match("[.,]on=([^,|]*)$") == host then
    found[#found + 1] = looked[i]
  end
end
return found
