"""The data dictionary: every Redis key, its type, its content and who deletes it.

Nothing else formats a key. The scripts get the same names as a Lua table (`K.job .. id`).
All keys share one hash tag, so that one script may touch them all.
"""

from __future__ import annotations

import re

PREFIX = "{rq}:"

#: name -> (suffix, type, what it holds and who deletes it). `permanent` keys outlive every job;
#: `pruned` ones go with their job; the others have a TTL.
KEYS: dict[str, tuple[str, str, str]] = {
    "meta": (
        "meta",
        "hash",
        "fleet key id, Redis run id, last tick, lease times, quiet time, storm brake, the "
        "sweep's place, the registry's version, whether a claim met the fleet's limit, "
        "sealed keys of the fleet; permanent",
    ),
    "ids": ("ids", "zset", "every job id, all scores 0, for look-up by prefix; permanent"),
    "recent": ("recent", "list", "the ids that were submitted last, newest first; permanent"),
    "name": ("name:", "zset", "per name: job ids, numbered as submitted; until its jobs are gone"),
    "group": ("group:", "zset", "per group: job ids, numbered likewise; until its jobs are gone"),
    "unique": ("unique:", "string", "per unique key: the one job that has it; until that ends"),
    "events": ("events", "stream", "the audit trail: about the last 10,000 events; permanent"),
    "refused": ("refused:", "string", "per host: a refusal that was just noted; TTL 600 s"),
    "state": (
        "state:",
        "zset",
        "per state: job ids by the instant they entered it (running: lease end; lost: instant of "
        "the verdict; scheduled: when due); permanent",
    ),
    "queue": ("queue:", "zset", "per queue: queued job ids by priority and time; permanent"),
    "queues": (
        "queues",
        "zset",
        "the queues of needs by their last use; out after a day; permanent",
    ),
    "overflow": ("overflow", "zset", "ids by when they leave a preferred host's queue; permanent"),
    "expiring": ("expiring", "zset", "ids by when they fail if nobody took them; permanent"),
    "nudges": ("k:", "list", "per queue: Celery messages, each a nudge to claim; permanent"),
    "job": ("job:", "hash", "the record; pruned"),
    "spec": ("spec:", "string", "the signed spec; pruned"),
    "outcome": ("outcome:", "string", "the last attempt's signed outcome; pruned"),
    "checkpoint": ("checkpoint:", "string", "what a job left for its next attempt; pruned"),
    "late": ("late:", "string", "the outcome of an attempt that had lost its lease; pruned"),
    "log": ("log:", "stream", "head and tail of the output, by byte position; pruned"),
    "done": ("done:", "stream", "one entry when the job ended, for those who wait; TTL 60 s"),
    "dependents": ("dependents:", "set", "jobs that wait for this one to end; pruned"),
    "halt": ("halt:", "hash", "what is counted of jobs that end together, and how often; TTL 90 d"),
    "halted": ("halted:", "set", "per halt: ids of the jobs that end together; TTL 90 d"),
    "flow": ("flow:", "hash", "a workflow's run: its name, source, graph; until its jobs are gone"),
    "flows": ("flows", "zset", "ids of workflows' runs by their submit; permanent"),
    "companions": ("companions:", "set", "jobs that are to run on this one's host; pruned"),
    "family": (
        "family:",
        "set",
        "per root: all jobs that it, or they, submitted; TTL 30 d",
    ),
    "followers": ("followers:", "set", "replies that want the live output; TTL 7 d, pruned"),
    "reply": ("reply:", "stream", "output sent to one follower; TTL 120 s"),
    "ack": ("ack:", "string", "position up to which that follower has read; TTL 30 s"),
    "input": ("input:", "stream", "standard input on its way to a job; TTL 1 d"),
    "taken": ("taken:", "string", "position up to which the host has that input; TTL 1 d"),
    "hosts": ("hosts", "zset", "host names by last heartbeat; permanent"),
    "host": ("host:", "hash", "registration, heartbeat and facts of a host; permanent"),
    "active": ("active:", "set", "per host: ids of jobs that it is running; permanent"),
    "by_host": ("by_host:", "zset", "per host: job ids by the instant of their claim; permanent"),
    "stats": (
        "stats:",
        "hash",
        "per day and hour: how many attempts ended how, by host and kind; TTL 400 d and 49 h",
    ),
    "account": (
        "account:",
        "hash",
        "per account of an agent: its pause, the next start, what it cost today; TTL 90 d or more",
    ),
    "account_active": (
        "account_active:",
        "set",
        "per account: ids of running and lost jobs that use it; permanent",
    ),
    "accounts": ("accounts", "zset", "accounts by when they are forgotten; permanent"),
    "session": ("session:", "hash", "where an agent's session lives; TTL 30 d"),
    "sessions": ("sessions", "zset", "ids of sessions by their last use; permanent"),
    "answer": ("answer:", "string", "a person's signed reply, for the next claim; pruned"),
    "asking": ("asking", "zset", "running jobs that ask, by when they did; permanent"),
    "artifact": ("artifact:", "string", "per sha256: a small file; until no job uses it"),
    "users": ("users:", "set", "per sha256: jobs that use that content; until they are gone"),
    "files": ("files:", "hash", "per job: which sha256 it uses, in or out; pruned"),
    "fileserver": ("fileserver", "string", "where the file service is; TTL 60 s"),
    "analysis": ("analysis:", "string", "a run of an analysis: its signed plan; TTL 30 d"),
    "analyses": ("analyses", "zset", "ids of those runs by their start; permanent"),
    "analysed": ("analysed:", "string", "per file and question: what was found; TTL 30 d"),
    "schedules": ("schedules", "zset", "schedules by when their next run begins; permanent"),
    "schedule": (
        "schedule:",
        "hash",
        "per name: what recurs, signed, and how far it has come; until a person removes it",
    ),
    "control": ("control:", "list", "per host: cancels and requests for output; TTL 120 s"),
}

_IN_LUA = re.compile(r"\bK\.(\w+)")
_NAMES = {start: name for name, (start, _, _) in KEYS.items()}


class Keys:
    """The keys of one data set."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.prefix = prefix

    def __call__(self, name: str, suffix: str = "") -> str:
        """Return the key `name`, for one job, host, queue or reply where it is kept for each."""
        return f"{self.prefix}{KEYS[name][0]}{suffix}"

    def parts(self, key: str) -> tuple[str, str]:
        """Return the name and the suffix of a whole key; ("", key) for one that isn't declared."""
        head, colon, suffix = key.removeprefix(self.prefix).partition(":")
        name = _NAMES.get(head + colon)
        return ("", key) if name is None else (name, suffix)

    def nudge_prefix(self) -> str:
        """Return what Celery puts before its queue names."""
        return self("nudges")

    def lua_table(self, source: str) -> str:
        """Return the Lua table `K` with the keys that a script's source names.

        Redis makes it anew at every call: with all keys that would be a fifth of a short one.
        """
        used = KEYS if "K[" in source else {*_IN_LUA.findall(source)}
        rows = ", ".join(f'{name} = "{self(name)}"' for name in KEYS if name in used)
        return f"local K = {{ {rows} }}"
