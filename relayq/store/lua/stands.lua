-- stands: how the ends of jobs count, for those that come after them and for halts.

-- How an end counts for what comes after: "good", "skipped", "failed" or "cancelled". A lenient job's
-- failure is a good end, but not one that a job before it took along: then it never ran.
local function stands(state, reason, lenient)
  if state == "succeeded" then return reason == "skipped" and "skipped" or "good" end
  if lenient and reason ~= "upstream" then return "good" end
  return state
end

-- The run of a workflow whose jobs are this group.
local function flow_of(group) return group and group:match("^flow%-(.+)$") end

-- What a job is to do after these ends, by when it runs: "failed", "waiting", "skipped" or "ready".
local function turn(when, is_waiting, fails, skips, is_doomed)
  if not when and is_doomed then return "failed" end
  if is_waiting then return "waiting" end
  if when == "always" then return "ready" end
  if when == "failure" then return fails and "ready" or "skipped" end
  return skips and "skipped" or "ready"
end

-- Whether an end is of those that a halt counts: what failed by itself, what did its work, or both.
local function is_counted(counted, end_)
  local is_success = end_.as == "good"
  local is_failure = end_.as == "failed" and end_.reason ~= "upstream"
  if end_.state == "cancelled" then is_success = false end
  return is_success and counted ~= "fail" or is_failure and counted ~= "success"
end
