-- give_up: end a queued job whose record doesn't allow to claim it; nobody can run it any more.
--
-- uses: ends
-- args: offset
-- rest: id   (it may be anything)
-- Returns  "ok"
call("ZREM", K.hosts, "")
spare(give_up, ARGV[rest], "queued", now())
return "ok"
