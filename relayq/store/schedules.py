"""Schedules: what recurs, as it was signed, and how far each has come.

Their jobs are submitted by the script that moves a schedule on, so no instant has two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relayq.errors import NoSuchSchedule, RelayqError
from relayq.model.halts import Halt
from relayq.model.jobs import JobRecord, JobState
from relayq.model.schedules import GROUP, MOST_RECENT, Schedule, ScheduleRecord, Step
from relayq.store.flows import STATES, FlowRecord, common_of, group_of
from relayq.store.jobs import Jobs, Submission
from relayq.store.keys import Keys
from relayq.store.reading import Reader, instant, texts
from relayq.store.scripts import Scripts, broker_errors, executed

if TYPE_CHECKING:
    import redis

#: What `recur` and `submit` say where a job wasn't made by them.
_STRANGE = frozenset({"changed", "gone", "wrong_key", "exists", "clash", "no_parent"})


@dataclass(frozen=True, slots=True)
class Standing:
    """A schedule as it is at the broker's `now`, with the jobs of its runs that haven't ended."""

    record: ScheduleRecord
    unended: Mapping[str, Sequence[str]]
    now: float


class Schedules:
    """The schedules."""

    def __init__(
        self,
        connection: redis.Redis,
        keys: Keys,
        scripts: Scripts,
        jobs: Jobs,
        reader: Reader,
    ) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts
        self._jobs = jobs
        self._reader = reader

    def now(self) -> float:
        """Return the broker's time."""
        with broker_errors():
            seconds, micros = self._connection.time()
        return float(seconds + micros / 1e6 + self._scripts.offset())

    def keep(
        self,
        name: str,
        signed: bytes,
        *,
        key_id: str,
        uid: str,
        next_at: float | None,
        due_at: float | None,
        who: str,
        replace: bool = False,
        paused: bool = False,
    ) -> str:
        """Store a schedule, with the `uid` that it alone has; `key_id` names what signed it.

        Returns "added", "replaced", "exists" where another one isn't to be replaced, or "wrong_key"
        when the fleet has another key.
        """
        answer = self._scripts.call(
            "keep_schedule",
            key_id=key_id,
            name=name,
            uid=uid,
            signed=signed,
            upcoming=_number(next_at),
            due=_number(due_at),
            who=who,
            replace="1" if replace else "",
            paused="1" if paused else "",
        )
        return str(answer.decode())

    def fetch(self, name: str) -> Standing:
        """Return one schedule."""
        pipe = self._connection.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(self._keys("schedule", name))
        (seconds, micros), raw = executed(pipe)
        if not raw:
            raise NoSuchSchedule(f"no such schedule: {name}", hint="relayq schedule ls")
        record = self._reader.one("schedule", _record, (name, raw))
        now = seconds + micros / 1e6 + self._scripts.offset()
        return Standing(record, self._unended(record), now)

    def names(self) -> Sequence[str]:
        """Return the names of all schedules: what comes next first."""
        with broker_errors():
            found = self._connection.zrange(self._keys("schedules"), 0, -1)
        return [name.decode(errors="replace") for name in found]

    def list(self) -> Sequence[ScheduleRecord]:
        """Return all schedules: what comes next first, then what nothing comes of."""
        names = self.names()
        pipe = self._connection.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self._keys("schedule", name))
        rows = zip(names, executed(pipe) if names else [], strict=True)
        return self._reader.all("schedule", _record, [row for row in rows if row[1]])

    def _unended(self, record: ScheduleRecord) -> dict[str, Sequence[str]]:
        """Return the jobs that haven't ended of the runs that may go on."""
        members = {id: [id] for id in record.going}
        if record.schedule is not None and record.schedule.flow is not None:
            pipe = self._connection.pipeline(transaction=False)
            for id in record.going:
                pipe.zrange(self._keys("group", group_of(id)), 0, -1)
            with broker_errors():
                found = pipe.execute() if record.going else []
            pairs = zip(record.going, found, strict=True)
            members = {id: [one.decode(errors="replace") for one in ids] for id, ids in pairs}
        states = self._states([id for ids in members.values() for id in ids])
        return {
            run: [id for id in ids if id in states and not states[id].is_final]
            for run, ids in members.items()
        }

    def _states(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Return the states of those jobs that are known."""
        pipe = self._connection.pipeline(transaction=False)
        for id in ids:
            pipe.hget(self._keys("job", id), "state")
        pairs = zip(ids, executed(pipe) if ids else [], strict=True)
        return {id: STATES[state] for id, state in pairs if state in STATES}

    def runs(self, name: str, count: int) -> Sequence[JobRecord]:
        """Return the jobs of its newest runs, the newest first."""
        key = self._keys("group", GROUP + name)
        with broker_errors():
            ids = self._connection.zrange(key, 0, count - 1, desc=True)
        return self._jobs.fetch_many(id.decode(errors="replace") for id in ids)

    def recur(
        self,
        before: ScheduleRecord,
        done: Step,
        submissions: Sequence[Submission],
        *,
        template: str,
        key_id: str,
        who: str,
    ) -> str:
        """Submit the jobs of a turn and move the schedule on, if it is still as it was.

        Returns "done", else "changed", "gone", or what `submit` says of a job that isn't new.
        """
        recent = [*(run.id for run in reversed(done.runs)), *before.recent]
        words = self._jobs.send(
            submissions,
            template=template,
            key_id=key_id,
            **_common(done),
            turn={
                "schedule": before.name,
                "known_turn": before.turn,
                "upcoming": _number(done.next_at),
                "due": _number(done.due_at),
                "seen": _number(done.seen_at),
                "missed": done.missed,
                "left_out": done.left_out,
                "runs": len(done.runs),
                "last": _number(done.runs[-1].instant if done.runs else None),
                "recent": " ".join(recent[:MOST_RECENT]),
                "going": " ".join(done.going),
                "needs": " ".join(done.needs),
                "cancels": " ".join(done.cancels),
                "acts": who,
            },
        )()
        strange = [word for word in words if word in _STRANGE]
        return strange[0] if strange else "done"

    def pause(self, name: str, *, who: str) -> str:
        """Have nothing come of it: "paused", or "already"."""
        return self._word("pause_schedule", name, who=who)

    def resume(self, name: str, *, next_at: float | None, due_at: float | None, who: str) -> str:
        """Have it come again: "resumed", or "already"."""
        return self._word(
            "resume_schedule", name, upcoming=_number(next_at), due=_number(due_at), who=who
        )

    def drop(self, name: str, *, who: str) -> None:
        """Delete it; its jobs stay."""
        self._word("drop_schedule", name, who=who)

    def refuse(self, before: ScheduleRecord, why: str, *, for_good: bool) -> None:
        """Note why no worker takes its turn, or why this one can't."""
        self._scripts.call(
            "refuse_schedule",
            name=before.name,
            known_turn=before.turn,
            why=why,
            for_good="1" if for_good else "",
        )

    def _word(self, script: str, name: str, **arguments: Any) -> str:
        word = self._scripts.call(script, name=name, **arguments).decode()
        if word == "gone":
            raise NoSuchSchedule(f"no such schedule: {name}", hint="relayq schedule ls")
        return str(word)


def _common(done: Step) -> dict[str, Any]:
    """Return what a workflow's run has beside its jobs, as an argument of `Jobs.send`."""
    if not done.runs or done.runs[0].flow is None:
        return {}
    [run] = done.runs
    held = dict(done.runs[0].flow)
    halts = [Halt(*one) for one in held.pop("halts")]
    return common_of(run.jobs, halts, FlowRecord(**held))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _record(name: str, raw: Mapping[bytes, bytes]) -> ScheduleRecord:
    fields = texts({key: value for key, value in raw.items() if key != b"signed"})
    signed = raw.get(b"signed", b"")

    def number(field: str) -> float | None:
        return instant(fields[field]) if field in fields else None

    return ScheduleRecord(
        name=name,
        signed=signed,
        turn=f"{fields.get('uid', '')} {fields.get('turn', '')}",
        schedule=_readable(signed),
        created_at=number("created") or 0.0,
        next_at=number("next"),
        due_at=number("due"),
        seen_at=number("seen"),
        paused_at=number("paused"),
        paused_by=fields.get("paused_by"),
        runs=int(fields.get("runs", 0)),
        missed=int(fields.get("missed", 0)),
        left_out=int(fields.get("left_out", 0)),
        last_at=number("last"),
        recent=tuple(fields.get("recent", "").split()),
        going=tuple(fields.get("going", "").split()),
        refused=fields.get("refused"),
        trouble=fields.get("trouble"),
    )


def _readable(signed: bytes) -> Schedule | None:
    """Read a schedule for show only: nothing is submitted on the word of an unchecked one."""
    try:
        schedule = Schedule.from_dict(json.loads(signed.split(b"\n", 1)[1]))
        # What can't be shown mustn't keep the others from being shown.
        return schedule if schedule.timing and schedule.spec else None
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, RelayqError):
        return None
