"""What a job is: its spec, its record, its states and the moves between them.

A spec says what to run and is signed; a record says what became of it and changes only by the
store's scripts. What may follow what is in model/moves.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from typing import Any

from relayq.errors import RelayqError
from relayq.model.placement import KIND, UNIVERSAL, Constraints, constraints_of, queue_of
from relayq.model.progress import Progress

#: Crockford's base32: no I, L, O, U, so that an id survives being read aloud.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 12
#: Each byte's letter: every letter has eight bytes, so all are equally likely.
_LETTERS = (ALPHABET * 8).encode()
SCHEMA = 1


class JobState(StrEnum):
    """The nine states of a job."""

    WAITING = "waiting"  #: jobs that it comes after have not all succeeded
    SCHEDULED = "scheduled"  #: due later: a start time, or a retry's delay
    QUEUED = "queued"  #: on a queue, for any free slot that serves it
    RUNNING = "running"  #: one attempt holds the lease
    LOST = "lost"  #: the lease expired; the verdict is open
    NEEDS_HUMAN = "needs_human"  #: stopped with a question; `relayq review` shows it
    SUCCEEDED = "succeeded"
    FAILED = "failed"  #: no attempts left; the dead letters are exactly these
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether only a person's retry can move the job on."""
        return self in FINAL

    @property
    def is_waitable(self) -> bool:
        """Whether somebody who waits for the job goes on waiting."""
        return not self.is_final and self is not JobState.NEEDS_HUMAN


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Reason(StrEnum):
    """Why a job is in its final or parked state."""

    EXIT = "exit"  #: the command ended by itself
    SIGNAL = "signal"  #: a signal that relayq didn't send ended the command
    TIMEOUT = "timeout"  #: the job's own time limit
    LOST = "lost"  #: its host went away, and the policy says no further attempt
    REFUSED = "refused"  #: the spec isn't signed by the fleet's key, or names an unknown kind
    EXPIRED = "expired"  #: nobody took it in time
    UPSTREAM = "upstream"  #: a job that it comes after didn't succeed, so it never ran
    USER = "user"  #: a person decided
    SPAWN = "spawn"  #: the process couldn't be started: a missing directory, for instance
    HOST = "host"  #: its host couldn't start it: no room on its disk, no process to be had
    OOM = "oom"  #: it needed more memory than its limit
    OUTPUT = "output"  #: it wrote more than its limit
    FILES = "files"  #: a file that it was to take along or bring back isn't there
    SKIPPED = "skipped"  #: its condition wasn't true, or that of a job that it comes after
    HALTED = "halted"  #: others of its kin failed, or succeeded: so many that it was ended
    QUOTA = "quota"
    AUTH = "auth"


PRIORITIES: Mapping[str, int] = {"low": 2, "normal": 5, "high": 8, "urgent": 10}
ON_LOST = ("retry", "ask", "fail")


def priority_number(priority: int | str) -> int:
    """Return a priority as a number from 1 to 10; it may be a word of `PRIORITIES`."""
    number = PRIORITIES.get(priority) if isinstance(priority, str) else priority
    if number is None and str(priority).isdecimal():
        number = int(priority)
    if number is None or not 1 <= number <= 10:
        raise RelayqError(f"a priority is 1 to 10 or one of {', '.join(PRIORITIES)}: {priority!r}")
    return number


def new_id() -> str:
    """Return a fresh job id: 12 random characters, 60 bits."""
    return os.urandom(ID_LENGTH).translate(_LETTERS).decode()


def normal_id(text: str) -> str:
    """Return an id or prefix as it is stored: people may type capitals, and o, i, l for digits."""
    return text.strip().lower().replace("o", "0").replace("i", "1").replace("l", "1")


#: Fields of a spec that JSON has as lists.
_LISTS = (
    *("after", "labels", "backoff", "retry_on", "on", "needs", "excluded", "accounts"),
    *("files_in", "files_out", "secrets", "ancestors"),
    *("after_any", "halts", "takes"),
)


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run, where and how; signed by the fleet's key, never changed.

    Durations are seconds, `max_log`, `memory` and `max_output` bytes; a limit None means that there
    is none: of the memory and the number of all its processes, and of what it may write.

    `host` is the one host to run on; else `on` are names, patterns and labels of which one must
    fit its host, `needs` what that must be able to do, `excluded` which hosts it must not be, and
    `resources` what the job takes of it (model/placement.py). It waits `overflow` seconds for the
    host that it would rather have, `prefer`, or for the one that the `strategy` chose; `with_job`
    is the job whose host it shares. It fails if no host has taken it `expires` seconds after its
    submit. `accounts` are those that a job of an agent may use (`claude/default`), the first choice
    first. `files_in` and `files_out` are the files that travel with it (model/files.py), `secrets`
    the names of those of its host that its command gets (model/secrets.py). `ancestors` are the
    jobs that it was submitted by, the root first; `grant` says what it may submit itself
    (model/grants.py).

    With `git` it works in a worktree of its own, at that commit of the repository that its
    directory is in (model/changes.py).

    `after` are ids of jobs that must have succeeded first, or, by `when`, of which one must have
    failed ("failure"), or that must have ended ("always"); `after_any` are ids of jobs that must
    have ended, however. The failure of one that `is_lenient` counts as success for what comes after
    it. Those with the name of one of its `halts` end together (model/halts.py).

    A job that is a `step` of a workflow's run, `flow`, has the `matrix` of its values. Its payload
    has expressions if it `is_template`: its worker works them out, with the signed outcomes of the
    jobs that it `uses`, by step. With a `condition` that isn't true then it is skipped. With
    `fans`, an expression for a list, it becomes a job for each item. `takes` are files that other
    jobs brought back.

    `signed_at` is when its submitter signed it, in Unix seconds: some time after that no host
    starts it any more (model/consents.py). `item_of` is the step that became this job, and the
    number of its item.

    `retries` counts further attempts after
    one that failed by a cause of `retry_on`, after delays that grow within `backoff`
    (model/retries.py). Of jobs with the same `unique` only one at a time isn't ended. `name`,
    `labels`, `meta`, `group` and `note` are the submitter's own, to find the job by.
    """

    id: str
    kind: str
    payload: Mapping[str, Any]
    host: str | None = None
    priority: int = 5
    timeout: float | None = None
    max_log: int | None = None
    memory: int | None = None
    processes: int | None = None
    max_output: int | None = None
    on_lost: str = "retry"
    retries: int = 0
    backoff: tuple[float, float] = (1.0, 60.0)
    backoff_factor: float = 2.0
    backoff_jitter: bool = True
    retry_on: tuple[str, ...] = ("exit", "signal")
    due_at: float | None = None
    after: tuple[str, ...] = ()
    name: str | None = None
    submitter: str = ""
    labels: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    unique: str | None = None
    note: str | None = None
    on: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    resources: Mapping[str, int] = field(default_factory=dict)
    prefer: str | None = None
    overflow: float | None = None
    strategy: str | None = None
    with_job: str | None = None
    expires: float | None = None
    accounts: tuple[str, ...] = ()
    files_in: tuple[Mapping[str, Any], ...] = ()
    files_out: tuple[Mapping[str, Any], ...] = ()
    git: str | None = None
    secrets: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()
    grant: Mapping[str, Any] = field(default_factory=dict)
    after_any: tuple[str, ...] = ()
    when: str = "success"
    is_lenient: bool = False
    halts: tuple[str, ...] = ()
    flow: str | None = None
    step: str | None = None
    matrix: Mapping[str, Any] = field(default_factory=dict)
    uses: Mapping[str, Any] = field(default_factory=dict)
    is_template: bool = False
    condition: str | None = None
    fans: str | None = None
    takes: tuple[Mapping[str, Any], ...] = ()
    signed_at: int = 0
    item_of: str | None = None

    @property
    def constraints(self) -> Constraints:
        """What it asks of a host, to know its kind included."""
        kind = f"{KIND}{self.kind}"
        return Constraints(
            on=self.on if self.host is None else (self.host,),
            needs=self.needs if kind in UNIVERSAL else tuple(sorted({*self.needs, kind})),
            excluded=self.excluded,
            prefer=self.prefer,
            overflow=self.overflow,
            resources=self.resources,
            accounts=self.accounts,
        )

    @property
    def root(self) -> str:
        """The first of the jobs of which one submitted the next, until this one."""
        return self.ancestors[0] if self.ancestors else self.id

    @property
    def is_constrained(self) -> bool:
        """Whether more is asked of its host than a name."""
        return (
            bool(self.on or self.needs or self.excluded or self.resources or self.prefer)
            or bool(self.accounts)
            or f"{KIND}{self.kind}" not in UNIVERSAL
        )

    @property
    def queue(self) -> str:
        """The widest queue that serves this job."""
        if self.is_constrained:
            return queue_of(self.constraints)
        return "any" if self.host is None else f"host.{self.host}"

    def queue_on(self, host: str, account: str = "", *, alone: bool = False) -> str:
        """Return the queue on which only this host takes the job, such as where its session is.

        The account whose session it is comes first there, or `alone`.
        """
        accounts = self.accounts
        if account in accounts:
            others = () if alone else tuple(one for one in accounts if one != account)
            accounts = (account, *others)
        return queue_of(replace(self.constraints, on=(host,), accounts=accounts))

    def queue_without(self, account: str) -> str:
        """Return the queue for the job's other accounts, "" if there is no other."""
        others = tuple(one for one in self.accounts if one != account)
        return queue_of(replace(self.constraints, accounts=others)) if others else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as JSON can hold them."""
        kept: dict[str, Any] = {"v": SCHEMA}
        for name, default in _defaults():
            value = getattr(self, name)
            if value != default:
                kept[name] = list(value) if isinstance(value, tuple) else value
        return kept

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Spec:
        """Read what `as_dict` wrote; a newer version or an unknown field is a ValueError."""
        if raw.get("v") != SCHEMA:
            raise ValueError(f"spec version {raw.get('v')!r}, this relayq reads {SCHEMA}")
        unknown = set(raw) - {f.name for f in fields(cls)} - {"v"}
        if unknown:
            raise ValueError(f"unknown spec fields: {', '.join(sorted(unknown))}")
        kept = {key: value for key, value in raw.items() if key != "v"}
        allowed = _allowed()
        for name, value in kept.items():
            if type(value) not in allowed[name]:
                raise ValueError(f"a spec's {name} can't be {value!r:.40}")
        for name in _LISTS:
            if name in kept:
                kept[name] = tuple(kept[name])
        return cls(**kept)


@cache
def _defaults() -> Sequence[tuple[str, Any]]:
    """Return the fields of a spec with their defaults; those without one have MISSING."""
    return [
        (f.name, f.default if f.default_factory is MISSING else f.default_factory())
        for f in fields(Spec)
    ]


@cache
def _allowed() -> Mapping[str, frozenset[type]]:
    """Return what a spec's fields may hold, as JSON gives it, by their annotations."""
    types: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "None": (type(None),),
        "Mapping": (dict,),
        "tuple": (list, tuple),
    }
    return {
        f.name: frozenset(
            one for part in str(f.type).split(" | ") for one in types[part.partition("[")[0]]
        )
        for f in fields(Spec)
    }


@dataclass(frozen=True, slots=True)
class Token:
    """The fencing token of an attempt: the number alone is unsafe after a lost write."""

    id: str
    attempt: int
    uid: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What relayq knows of a job. Instants are Unix seconds on the broker's clock.

    `host` is the machine of the current or last attempt, `phase` of a running one is `claimed`
    or `started`; `cancel_at` is set once a cancel was accepted, `pause_at` once a person's pause
    was. `paused` says why its processes stand still since `paused_at`, None while they run.
    `failures` counts the attempts after which its policy let it be tried again, `losses` those that
    its hosts lost or couldn't start. `boot` is the install and the boot of the host that the last
    attempt ran on; `may_run` says that it was judged lost, and that its host has neither come back
    nor reported it gone.
    `account` is what its last attempt used of an agent; `cost_usd` and the tokens are sums over all
    attempts. A job that waits for a person's word says `question`, with `choices`, since
    `asked_at`; `asks` is the id of a question that it asks while it runs. `progress` is what a
    running one said last of how far it is.
    At `overflow_at` a queued job leaves the queue of the host that it prefers; at `expires_at` it
    fails if nobody has taken it. `halted` names the halt that ended it (model/halts.py), `fanned`
    the jobs that it became, one for each item of its list.
    """

    id: str
    kind: str
    state: JobState
    queue: str
    priority: int
    created_at: float
    spec: Spec | None = None
    attempt: int = 0
    host: str | None = None
    phase: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    claimed_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    due_at: float | None = None
    cancel_at: float | None = None
    pause_at: float | None = None
    paused_at: float | None = None
    paused: str | None = None
    failures: int = 0
    losses: int = 0
    note: str | None = None
    boot: str | None = None
    may_run: bool = False
    overflow_at: float | None = None
    expires_at: float | None = None
    account: str | None = None
    cost_usd: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    question: str | None = None
    choices: tuple[str, ...] = ()
    asked_at: float | None = None
    asks: str | None = None
    progress: Progress | None = None
    halted: str | None = None
    fanned: tuple[str, ...] = ()

    @property
    def duration(self) -> float | None:
        """Seconds from the start to the end of the last attempt, None before both are known."""
        if self.started_at is None or self.finished_at is None:
            return None
        # The broker's clock may have been set back meanwhile.
        return max(0.0, self.finished_at - self.started_at)

    @property
    def target(self) -> str:
        """Where it runs or ran, else where it is meant to: `->pi4`, or `-` for anywhere."""
        if self.host is not None and self.state not in (JobState.QUEUED, JobState.SCHEDULED):
            return self.host
        sort, _, text = self.queue.partition(".")
        if sort == "needs":
            on = constraints_of(self.queue).on
            return "->" + "|".join(on) if on else "-"
        return f"->{text}" if sort == "host" else "-"

    def as_dict(self) -> dict[str, Any]:
        """Return every field as JSON can hold it, the spec as a dictionary of its own."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "spec"}
        kept["state"] = self.state.value
        kept["duration"] = self.duration
        kept["spec"] = None if self.spec is None else asdict(self.spec)
        kept["progress"] = None if self.progress is None else asdict(self.progress)
        return kept


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as its worker signed it.

    `output` holds the frames of the whole output when it is small (`is_whole`), else nothing;
    `output_bytes` is the size of the output on the worker's disk, `dropped_bytes` what a full
    disk cost. `result` is what the kind returns. `remarks` say what its limits did besides.
    `files` are those that it brought back (`Kept` of model/files.py), `git` what it made of a
    repository (`Changes` of model/changes.py), `outputs` the values that it gave to steps after it.
    """

    id: str
    attempt: int
    uid: str
    host: str
    state: JobState
    reason: str
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    result: Any = None
    output: bytes = field(default=b"", repr=False)
    output_bytes: int = 0
    dropped_bytes: int = 0
    run_time: float = 0.0
    remarks: tuple[str, ...] = ()
    files: tuple[Mapping[str, Any], ...] = ()
    git: Mapping[str, Any] | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether `output` is all that the job wrote."""
        return len(self.output) == self.output_bytes and not self.dropped_bytes
