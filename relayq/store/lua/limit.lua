-- limit: have nothing start on an account for a while.
-- A later end that was said before stays, so that of two jobs that meet a limit the longer one counts.
--
-- args: offset account ends seconds reason who
-- Returns  the end of the pause
call("ZREM", K.hosts, "")
local at = now()
return instant(pause_account(account, tonumber(ends) or at + tonumber(seconds), reason, who, at))
