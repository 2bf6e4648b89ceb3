"""Recurring jobs: what a person signed, what is stored of it, and what a turn comes to.

Pure: the instants are in `model/timing.py`, who takes a turn is `relayq.recurring`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

from relayq.errors import BadSignature, RelayqError
from relayq.model.consents import LASTS
from relayq.model.jobs import ALPHABET, ID_LENGTH, Spec, new_id
from relayq.model.selectors import check_group, check_name
from relayq.model.timing import CATCH_UPS, GRACE, Timing, read, spread, turn

#: What is done when the run before goes on: this one is left out, waits, takes its place, or
#: doesn't mind.
OVERLAPS = ("skip", "queue", "replace", "allow")
#: How many runs of a schedule may wait for each other.
MOST_WAITING = 100
#: How many that mind no other are looked at, should the rule change.
MOST_BESIDE = 10
#: What one script submits.
MOST_JOBS = 1000
#: How many runs of a workflow are remembered.
MOST_RECENT = 20
GROUP = "schedule-"
SCHEMA = 1
_LONGEST_NAME = 60
#: A seen instant that is farther ahead than this was seen by a clock that was wrong.
_AHEAD = 86_400.0
#: Kinds whose command gets the instant as a variable.
_WITH_ENV = frozenset({"run_command", "run_agent", "run_claude"})
#: Where ids may stand in a text, and how long they are.
_WORDS = re.compile(rf"[0-9a-z]{{{ID_LENGTH},}}")


class Condition(StrEnum):
    """How a schedule is, in the word that people see."""

    ACTIVE = "active"
    PAUSED = "paused"  #: by a person
    ENDED = "ended"  #: nothing comes any more
    REFUSED = "refused"  #: it isn't what a person signed


@dataclass(frozen=True, slots=True)
class Schedule:
    """What recurs, as a person signed it: workers submit these jobs, at these instants.

    `uid` is new whenever it is added, `since` is when that was: intervals are counted from there.
    `jobs` are specs whose ids stand for those of each run. Of a workflow `flow` is what else is
    kept of a run: `id`, `name`, `source`, `graph`, `submitter`, `inputs` and `halts`. `grace` None
    is that of `catch_up`.
    """

    name: str
    uid: str
    when: str
    jobs: tuple[Mapping[str, Any], ...]
    zone: str = "UTC"
    since: float = 0.0
    catch_up: str = "once"
    grace: float | None = None
    overlap: str = "skip"
    jitter: float = 0.0
    until: float | None = None
    submitter: str = ""
    flow: Mapping[str, Any] | None = None

    @property
    def timing(self) -> Timing:
        """When it comes."""
        return read(self.when, zone=self.zone, since=self.since)

    @property
    def spec(self) -> Spec:
        """Its first job."""
        return Spec.from_dict(self.jobs[0])

    def delay(self, instant: float) -> float:
        """Return how many seconds after an instant its run begins."""
        return spread(self.uid, instant, self.jitter)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"v": SCHEMA, **held, "jobs": list(self.jobs)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Schedule:
        """Read what `as_dict` wrote; a newer version is a ValueError."""
        if raw.get("v") != SCHEMA:
            raise ValueError(f"schedule version {raw.get('v')!r}, this relayq reads {SCHEMA}")
        kept = {key: value for key, value in raw.items() if key != "v"}
        return cls(**{**kept, "jobs": tuple(kept["jobs"])})


def check_schedule(schedule: Schedule) -> Schedule:
    """Return a schedule that makes sense, or raise what doesn't."""
    if schedule.catch_up not in CATCH_UPS:
        raise RelayqError(f"catch_up is one of {', '.join(CATCH_UPS)}, not {schedule.catch_up!r}")
    if schedule.overlap not in OVERLAPS:
        raise RelayqError(f"overlap is one of {', '.join(OVERLAPS)}, not {schedule.overlap!r}")
    if schedule.catch_up == "all" and schedule.overlap in ("skip", "replace"):
        raise RelayqError(
            f"to make up for all that was missed, runs must wait for each other, or may overlap: "
            f"overlap {schedule.overlap} would leave all but one out",
            hint="--overlap queue, or --catch-up once",
        )
    if schedule.flow is not None and schedule.catch_up == "all":
        raise RelayqError(
            "a workflow is made up for once, not for each instant", hint="--catch-up once"
        )
    if len(schedule.jobs) > MOST_JOBS:
        raise RelayqError(
            f"a run of {len(schedule.jobs)} jobs can't recur: it has {MOST_JOBS} at most"
        )
    timing = schedule.timing
    following = [at for at, _ in zip(timing.after(schedule.since), range(6), strict=False)]
    if schedule.until is not None and (not following or following[0] > schedule.until):
        raise RelayqError(f"{schedule.when!r} doesn't come before it is to end (until)")
    gaps = [b - a for a, b in zip(following, following[1:], strict=False)]
    if gaps and schedule.jitter >= min(gaps):
        raise RelayqError(
            f"a jitter of {schedule.jitter:g} s is longer than from one run to the next, "
            f"{min(gaps):g} s"
        )
    return schedule


def check_schedule_name(name: str) -> str:
    """Return a schedule's name, or raise for one by which its jobs couldn't be found."""
    if len(name) > _LONGEST_NAME or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise RelayqError(
            f"a schedule's name has up to {_LONGEST_NAME} letters, digits, '.', '_' and '-', "
            f"not {name!r}"
        )
    check_group(GROUP + name)
    return check_name(name)


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """What is stored of a schedule; `signed` alone can be trusted, once it was checked.

    `turn` is another one after each change. `next_at` is the instant that comes next, `due_at`
    when its run begins, `seen_at` the newest instant that was dealt with. `going` are the runs that
    may not have ended, `recent` the newest, the last one first: by the ids of their jobs, or those
    of runs of a workflow.
    `missed` instants had nobody there, `left_out` ones came while a run went on. `refused` says why
    no worker takes it, `trouble` why one couldn't.
    """

    name: str
    signed: bytes
    turn: str
    schedule: Schedule | None = None
    created_at: float = 0.0
    next_at: float | None = None
    due_at: float | None = None
    seen_at: float | None = None
    paused_at: float | None = None
    paused_by: str | None = None
    runs: int = 0
    missed: int = 0
    left_out: int = 0
    last_at: float | None = None
    going: tuple[str, ...] = ()
    recent: tuple[str, ...] = ()
    refused: str | None = None
    trouble: str | None = None

    @property
    def last(self) -> str | None:
        """The newest run."""
        return self.recent[0] if self.recent else None

    @property
    def standing(self) -> Condition:
        """How it is."""
        if self.refused is not None:
            return Condition.REFUSED
        if self.paused_at is not None:
            return Condition.PAUSED
        return Condition.ENDED if self.next_at is None else Condition.ACTIVE


@dataclass(frozen=True, slots=True)
class Run:
    """The jobs of one instant.

    Its `id` is that of its job, or of the run of a workflow, of which `flow` is what else is kept.
    """

    id: str
    instant: float
    jobs: tuple[Spec, ...]
    flow: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a turn does: submits `runs`, cancels others, and goes on to the next instant.

    `going` are the runs that count as not ended after it.
    """

    runs: tuple[Run, ...] = ()
    cancels: tuple[str, ...] = ()
    going: tuple[str, ...] = ()
    missed: int = 0
    left_out: int = 0
    next_at: float | None = None
    due_at: float | None = None
    seen_at: float | None = None
    #: Jobs that must still be known when it is done, since others are to come after them.
    needs: tuple[str, ...] = ()

    @property
    def jobs(self) -> tuple[Spec, ...]:
        """The jobs of all runs."""
        return tuple(job for run in self.runs for job in run.jobs)


#: Of the runs that go on the jobs that haven't ended.
Unended = Mapping[str, Sequence[str]]


def step(schedule: Schedule, record: ScheduleRecord, unended: Unended, now: float) -> Step:
    """Decide what is to be done now.

    BadSignature when the record's next instant is none of what was signed.
    """
    assert record.next_at is not None
    timing, next_at = schedule.timing, record.next_at
    if _is_foreign(timing, next_at):
        raise BadSignature(f"{moment(next_at)} isn't an instant of {schedule.when!r}")
    if next_at + schedule.delay(next_at) > now:
        # The broker's clock was set back, or somebody asked too early.
        going = _going(record, unended)
        return _onward(schedule, going, _again(timing, record, now), record.seen_at)
    found = turn(
        timing,
        next_at=next_at,
        now=now,
        catch_up=schedule.catch_up,
        grace=GRACE[schedule.catch_up] if schedule.grace is None else schedule.grace,
        until=inf if schedule.until is None else schedule.until,
        delay=schedule.delay,
    )
    done = _arranged(schedule, found.due, _going(record, unended), unended, now=now)
    onward = _onward(schedule, done.going, found.next_at, found.seen)
    return replace(
        done,
        missed=found.missed,
        next_at=onward.next_at,
        due_at=onward.due_at,
        seen_at=onward.seen_at,
    )


def by_hand(
    schedule: Schedule,
    record: ScheduleRecord,
    unended: Unended,
    now: float,
    *,
    force: bool = False,
) -> Step:
    """Decide what a run that a person wants now does; what comes next stays as it is.

    With `force` it minds no other run. It is left out as others would be.
    """
    asked = replace(schedule, overlap="allow") if force else schedule
    done = _arranged(asked, [now], _going(record, unended), unended, now=now, word=new_id())
    return replace(
        done, next_at=record.next_at, due_at=record.due_at, seen_at=record.seen_at, missed=0
    )


def _arranged(
    schedule: Schedule,
    due: Sequence[float],
    going: tuple[str, ...],
    unended: Unended,
    *,
    now: float,
    word: str = "",
) -> Step:
    """Decide which of the runs that are due begin, with regard to those that go on."""
    overlap = schedule.overlap
    waits = overlap in ("queue", "replace")
    before = tuple(id for run in going for id in unended[run]) if waits else ()
    if overlap == "skip":
        kept = [] if going else due[:1]
    elif overlap == "replace":
        kept = due[-1:]
    elif overlap == "queue":
        room = MOST_WAITING - len(going) if len(before) <= MOST_JOBS else 0
        kept = due[: max(0, room)]
    else:
        kept = due
    runs: list[Run] = []
    for at in kept:
        others = [job.id for run in runs for job in run.jobs] if waits else []
        after_any = (*before, *others)
        runs.append(run_of(schedule, at, after_any, signed_at=_signed_at(at, now), word=word))
    most = MOST_WAITING if waits else MOST_BESIDE
    return Step(
        runs=tuple(runs),
        cancels=going if overlap == "replace" and kept else (),
        going=(*going, *(run.id for run in runs))[-most:],
        left_out=len(due) - len(kept),
        needs=before if kept else (),
    )


def _signed_at(instant: float, now: float) -> int:
    """Return when a run counts as signed: the same for every worker, unless it is made up for late.

    Then it would be too old before it begins.
    """
    return int(instant if now - instant < LASTS / 2 else now)


def _going(record: ScheduleRecord, unended: Unended) -> tuple[str, ...]:
    return tuple(id for id in record.going if unended.get(id))


def _onward(
    schedule: Schedule, going: tuple[str, ...], next_at: float | None, seen_at: float | None
) -> Step:
    due_at = None if next_at is None else next_at + schedule.delay(next_at)
    return Step(going=going, next_at=next_at, due_at=due_at, seen_at=seen_at)


def _again(timing: Timing, record: ScheduleRecord, now: float) -> float | None:
    """Return what comes next after the clock was set back: nothing that was dealt with already.

    Unless that is so far ahead that the clock must have been wrong before.
    """
    assert record.next_at is not None
    seen = record.seen_at
    since = now if seen is None or seen > now + _AHEAD else max(now, seen)
    first = timing.next_after(since)
    return record.next_at if first is None else min(first, record.next_at)


def _is_foreign(timing: Timing, instant: float) -> bool:
    """Whether an instant that stands in Redis isn't one that was signed."""
    if timing.every:
        # Stored with six decimals.
        nth = round((instant - timing.since) / timing.every)
        return nth < 1 or abs(timing.since + nth * timing.every - instant) > 0.001
    return timing.next_after(instant - 1.0) != instant


def first_of(schedule: Schedule, now: float) -> tuple[float | None, float | None]:
    """Return the next instant after now, and when its run begins; None after its end."""
    at = schedule.timing.next_after(now)
    if at is None or (schedule.until is not None and at > schedule.until):
        return None, None
    return at, at + schedule.delay(at)


def run_of(
    schedule: Schedule,
    instant: float,
    after_any: tuple[str, ...] = (),
    *,
    signed_at: int = 0,
    word: str = "",
) -> Run:
    """Return the run of an instant, the same for whoever submits it, but for another `word`.

    `signed_at` is when: a schedule may be older than any spec that a host starts.
    Its commands know by variables for which instant it is.
    """
    own = [str(job["id"]) for job in schedule.jobs]
    flow = schedule.flow
    names = {
        id: _derived(f"{schedule.uid} {instant:.3f} {nth} {word}")
        for nth, id in enumerate([*own, *([flow["id"]] if flow else [])])
    }
    # As text: an id stands in payloads, groups, names of halts and the graph as well.
    held = json.loads(_renamed(json.dumps([[*schedule.jobs], flow]), names))
    jobs = [Spec.from_dict(raw) for raw in held[0]]
    return Run(
        id=held[1]["id"] if flow else jobs[0].id,
        instant=instant,
        jobs=tuple(
            replace(_told(schedule, job, instant, after_any), signed_at=signed_at) for job in jobs
        ),
        flow=held[1],
    )


def submitted_as(schedule: Schedule, spec: Spec) -> Spec | None:
    """Return the job that this schedule, as it is now, submits by itself, if `spec` is that job.

    What it comes after decides nothing, nor does by which name its host is called.
    """
    said = spec.meta.get("instant", "")
    try:
        at = datetime.fromisoformat(said).timestamp()
    except ValueError:
        return None
    timing = schedule.timing
    instant = timing.next_after(at - 1.0)
    while instant is not None and instant < min(at + 1.0, spec.signed_at + _AHEAD):
        if moment(instant, schedule.zone) == said:
            run = run_of(schedule, instant, spec.after_any, signed_at=spec.signed_at)
            for job in run.jobs:
                if replace(job, host=spec.host) == spec:
                    return job
        instant = timing.next_after(instant)
    return None


def _told(schedule: Schedule, job: Spec, instant: float, after_any: tuple[str, ...]) -> Spec:
    """Return a job that knows for which instant it is, and what it comes after."""
    said = moment(instant, schedule.zone)
    payload = job.payload
    if job.kind in _WITH_ENV:
        told = {"RELAYQ_SCHEDULE": schedule.name, "RELAYQ_INSTANT": said}
        payload = {**payload, "env": {**(payload.get("env") or {}), **told}}
    is_first = not job.after and not job.after_any
    return replace(
        job,
        payload=payload,
        group=job.group if schedule.flow else GROUP + schedule.name,
        meta={**job.meta, "schedule": schedule.name, "instant": said},
        after_any=after_any if is_first else job.after_any,
    )


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text with each of these ids replaced, wherever they stand."""

    def rename(found: re.Match[str]) -> str:
        word, at, parts = found[0], 0, []
        while at < len(word):
            id = word[at : at + ID_LENGTH]
            parts.append(names.get(id, word[at]))
            at += ID_LENGTH if id in names else 1
        return "".join(parts)

    return _WORDS.sub(rename, text)


def _derived(text: str) -> str:
    """Return an id that is the same for the same text."""
    # OpenSSL takes 7 ms to load.
    import hashlib

    digest = hashlib.sha256(text.encode()).digest()
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:ID_LENGTH])


def moment(instant: float, zone: str = "UTC") -> str:
    """Return an instant in a zone, as RFC 3339 has it."""
    at = datetime.fromtimestamp(instant, UTC)
    shown = at if zone == "UTC" else at.astimezone(ZoneInfo(zone))
    return shown.isoformat(timespec="seconds").replace("+00:00", "Z")
