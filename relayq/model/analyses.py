"""A run of an analysis: what was planned of it, and what follows from how its sessions ended.

A plan is made once, signed, and never changed, but for a shard that a person has run afresh. What
became of each shard is in its job; all else is worked out of both (`relayq.harvesting`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from relayq.model.jobs import ALPHABET, ID_LENGTH, JobRecord, JobState, Reason
from relayq.model.shards import FIRST, Shard

SCHEMA = 1
#: What a session costs besides the files that it reads, in bytes of these.
_SESSION_WEIGHT = 20_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked of a run.

    `workers` is how many sessions go on at a time, `by` how the files are divided, `ext` which of
    them, `first` a regular expression of the paths that come first; `template` is the prompt,
    `schema` another form of the answers than relayq's own. `budget` (USD) is the whole run's,
    `max_turns` and `shard_timeout` each session's; with `in_place` the hosts read the files where
    they lie. `asked` are the options of `submit`.
    """

    agent: str
    model: str | None = None
    workers: int = 5
    by: str = "dir"
    ext: tuple[str, ...] = ()
    first: str | None = FIRST
    template: str = ""
    schema: Mapping[str, Any] | None = None
    smallest: int = 5
    largest: int = 20
    budget: float | None = None
    max_turns: int | None = 5
    shard_timeout: float = 600.0
    in_place: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A shard with the job that is its session, and the number of the part that it comes after."""

    shard: Shard
    job: str
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run as it was planned.

    `root` is the directory at the submitter, whose RELAYQ_HOME has the install id `install`.
    `cached` are the paths whose results an earlier run had, by their sha256; `left_out` says how
    many files aren't analysed, by the reason. `fresh` are the jobs of shards that a person had done
    anew, by the shards' names.
    """

    id: str
    root: str
    install: str
    created_at: float
    submitter: str
    wishes: Wishes
    parts: tuple[Part, ...] = ()
    cached: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    commit: str | None = None
    is_dirty: bool = False
    fresh: Mapping[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The group of its jobs."""
        return f"analysis-{self.id}"

    @property
    def files(self) -> int:
        """How many files it is about."""
        return len(self.cached) + sum(len(part.shard.files) for part in self.parts)

    @property
    def paths(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.cached, *(p for part in self.parts for p in part.shard.paths)))

    def with_job(self, shard: str, job: str) -> Plan:
        """Return the plan with another session for a shard."""
        return replace(self, fresh={**self.fresh, shard: job})

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = [
            {"shard": part.shard.as_dict(), "job": part.job, "after": part.after}
            for part in self.parts
        ]
        return {**kept, "v": SCHEMA, "wishes": asdict(self.wishes), "parts": parts}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Plan:
        """Read what `as_dict` wrote; anything else is a ValueError."""
        if raw.get("v") != SCHEMA:
            raise ValueError(f"a plan of version {raw.get('v')!r}, this relayq reads {SCHEMA}")
        try:
            wishes = Wishes(**{**raw["wishes"], "ext": tuple(raw["wishes"]["ext"])})
            parts = tuple(
                Part(Shard.from_dict(one["shard"]), str(one["job"]), one["after"])
                for one in raw["parts"]
            )
            kept = {key: value for key, value in raw.items() if key != "v"}
            return cls(**{**kept, "wishes": wishes, "parts": parts})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the plan can't be read: {error!r}") from error


def lanes(weights: Sequence[int], workers: int) -> list[int | None]:
    """Return for each shard the one after which it starts, None for those that start at once.

    So at most so many run at a time, in about their order, and nobody has to count them while they
    do: each lane takes the next one when it is the least laden.
    """
    laden: list[tuple[int, int]] = []
    after: list[int | None] = []
    for number, weight in enumerate(weights):
        cost = weight + _SESSION_WEIGHT
        if len(laden) < max(1, workers):
            after.append(None)
            laden.append((cost, number))
            continue
        lane = min(range(len(laden)), key=lambda one: laden[one][0])
        before, last = laden[lane]
        after.append(last)
        laden[lane] = (before + cost, number)
    return after


def derived(job: str, number: int) -> str:
    """Return the id of the nth job that takes over a part of this one: always the same."""
    digest = hashlib.sha256(f"{job} part {number}".encode()).digest()[:ID_LENGTH]
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest)


class Standing(StrEnum):
    """How it stands with a shard."""

    WAITING = "waiting"  #: its turn hasn't come
    RUNNING = "running"
    PARKED = "parked"  #: it goes on by itself, later
    ASKS = "asks"  #: it waits for a person
    DONE = "done"
    UNREADABLE = "unreadable"  #: its answer couldn't be read, and is kept
    HALVED = "halved"  #: it was too much for one session, and others do its parts
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self not in (Standing.WAITING, Standing.RUNNING, Standing.PARKED)


#: What a session couldn't take, of which less may do.
_TOO_MUCH = frozenset({"context_overflow", "output_limit"})


class Step(StrEnum):
    """What is to be done about a session that failed."""

    NOTHING = "nothing"
    RESUME = "resume"
    HALVE = "halve"


def step_after(error_class: str | None, *, attempt: int, files: int) -> Step:
    """Return what follows a failure: what the session couldn't hold is divided.

    One that used up its turns goes on once, where it was.
    """
    if error_class in _TOO_MUCH:
        return Step.HALVE if files > 1 else Step.NOTHING
    if error_class == "max_turns":
        if attempt < 2:
            return Step.RESUME
        return Step.HALVE if files > 1 else Step.NOTHING
    return Step.NOTHING


def standing_of(record: JobRecord) -> Standing:
    """Return how it stands with a job that is a session, as far as its record says."""
    match record.state:
        case JobState.RUNNING | JobState.LOST:
            return Standing.RUNNING
        case JobState.SUCCEEDED:
            return Standing.DONE
        case JobState.FAILED:
            return Standing.CANCELLED if record.reason == Reason.HALTED else Standing.FAILED
        case JobState.CANCELLED:
            return Standing.CANCELLED
        case JobState.NEEDS_HUMAN:
            return Standing.ASKS
        case JobState.SCHEDULED if record.attempt:
            return Standing.PARKED
    return Standing.WAITING


@dataclass(frozen=True, slots=True)
class Pace:
    """How long sessions take by the weight of their files, from those that have ended."""

    seconds: float = 0.0
    weight: int = 0
    fixed: int = _SESSION_WEIGHT

    def adding(self, seconds: float, weight: int) -> Pace:
        """Return the pace with one more session."""
        return replace(
            self, seconds=self.seconds + seconds, weight=self.weight + weight + self.fixed
        )

    def expected(self, weight: int) -> float | None:
        """Return how long a session is likely to take, None before the first has ended."""
        if not self.weight:
            return None
        return self.seconds * (weight + self.fixed) / self.weight


def left(
    pace: Pace, running: Sequence[tuple[int, float]], waiting: Sequence[int], workers: int
) -> float | None:
    """Return the seconds until all sessions are likely to have ended.

    `running` are weights with how long each runs, `waiting` the weights of those to come.
    """
    known = [pace.expected(weight) for weight in (*(weight for weight, _ in running), *waiting)]
    if not known or any(one is None for one in known):
        return None
    times = [one or 0.0 for one in known]
    still = [max(0.0, one - ran) for one, (_, ran) in zip(times, running, strict=False)]
    total = sum(still) + sum(times[len(running) :])
    return max([total / max(1, workers), *still])
