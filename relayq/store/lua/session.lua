-- session: note where an agent's session lives, as soon as it is known. A repeat changes nothing.
--
-- args: offset session
-- Returns  "ok"
call("ZREM", K.hosts, "")
note_session(cjson.decode(session), 0, 0, now())
return "ok"
