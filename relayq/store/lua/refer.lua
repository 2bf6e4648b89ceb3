-- refer: note that a job uses contents, and keep a small one that comes along.
-- What is noted before the job's submit goes after a day, unless it is noted again after it: who
-- submits may die in between, and then nobody would let go of it. `has` is "1" with a content, which
-- may be empty. `role`: "in", or "out" for what the job made.
--
-- args: offset id role has content
-- rest: sha256s   (one, with a content)
-- Returns  "kept" | "early" when there is no such job (yet)
local is_there = call("EXISTS", K.job .. id) == 1
for i = rest, #ARGV do
  local sha256 = ARGV[i]
  local artifact, users, files = K.artifact .. sha256, K.users .. sha256, K.files .. id
  if has == "1" then call("SET", artifact, content, "KEEPTTL") end
  call("SADD", users, id)
  if call("HGET", files, sha256) ~= "out" then call("HSET", files, sha256, role) end
  -- In this order: a content of which only jobs that aren't there know goes with what they noted.
  for _, key in ipairs({ users, files, artifact }) do
    local is_new = key == files or key == users and call("SCARD", users) == 1
    if is_there then
      call("PERSIST", key)
    elseif is_new or call("TTL", key) >= 0 or key == artifact and call("TTL", users) >= 0 then
      call("EXPIRE", key, 86400)
    end
  end
end
return is_there and "kept" or "early"
