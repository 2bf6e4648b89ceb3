"""What can be run, declared: a kind says what a job's payload is and which process it becomes.

A kind knows no Redis, no Celery and no subprocess: `plan` says which process to start,
`interpret` turns its end into a verdict. So every kind runs, streams and is killed the same way,
and a new worker process can take over in the middle. How far it is, the process itself says
(`relayq.host.progress`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from relayq.errors import RelayqError
from relayq.model.jobs import JobState


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a kind may know of the host that it plans for, and of the claim.

    `state_dir` is where what outlives a job may be kept, `agents` the host's configuration of its
    agents. `account` is the one that the claim gave, `<agent>/<name>`; `answer` is what a person
    answered to the question of the attempt before: `text`, and `allow`, a list. `scratch` is the
    directory for a job that files travel with and that names none; "" for one without files.
    `models` is where the models of speech engines are kept, `hub` the variables for their hub.
    """

    name: str
    home: str
    state_dir: str = ""
    is_root: bool = False
    agents: Mapping[str, Any] = field(default_factory=dict)
    account: str = ""
    answer: Mapping[str, Any] | None = None
    scratch: str = ""
    models: str = ""
    hub: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start: `env` is added to the host's own, `stdin` is fed to it whole.

    The files that travel with the job have their places relative to `cwd`. With `feed`, its
    standard input comes from its submitter while it runs; with `tty` it has a terminal for its
    standard streams, too.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    feed: bool = False
    tty: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: exactly one of `exit_code` and `signal`, unless it never started.

    `report` is the JSON object that it left in the file RELAYQ_REPORT, if it did. `failures` counts
    the attempts before it that failed, `fallbacks` says that the job names another agent for when
    this one can't, `at` is the instant of its judgement in Unix seconds, and `jitter` a number in
    [0, 1): chance is the caller's to have.
    """

    exit_code: int | None
    signal: int | None
    reason: str
    error: str | None = None
    report: Mapping[str, Any] | None = None
    failures: int = 0
    fallbacks: bool = False
    at: float = 0.0
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a job's end means. `result` None means: its standard output is the result.

    A job that is `scheduled` is tried again after `delay` seconds or at the instant `until`;
    `counts` names the count of the record that this attempt adds to. It `stays` on its host for a
    while, where its session is, or goes to its `next_agent`, or on in another `queue`. A person is
    asked the `question`. Until `account_until` its account gets no further job.
    `usage` has the cost and the tokens, `session` what the registry of sessions is told. `outputs`
    are for the steps after it.
    """

    state: JobState
    reason: str
    result: Any = None
    error: str | None = None
    until: float | None = None
    delay: float | None = None
    counts: str = ""
    question: str = ""
    choices: tuple[str, ...] = ()
    account_until: float | None = None
    next_agent: bool = False
    stays: bool = False
    session: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""


class Kind(Protocol):
    """The two functions that make a kind, and its payload's dataclass."""

    Payload: type[Any]

    def plan(self, payload: Any, host: HostFacts) -> Command:
        """Return the process to start."""

    def interpret(self, ended: Ended) -> Verdict:
        """Return what the process's end means."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A kind with its name."""

    name: str
    kind: Kind

    def read_payload(self, raw: Mapping[str, Any]) -> Any:
        """Return the payload's dataclass, or raise a RelayqError that names the wrong field."""
        known = _fields(self)
        if unknown := sorted(raw.keys() - known.keys()):
            raise RelayqError(f"{self.name} has no field {unknown[0]!r}; it has {', '.join(known)}")
        for name, is_required in known.items():
            if is_required and name not in raw:
                raise RelayqError(f"{self.name} needs {name!r}")
        try:
            return self.kind.Payload(**raw)
        except (TypeError, ValueError) as error:
            raise RelayqError(f"{self.name}: {error}") from error


@cache
def _fields(of: Declared) -> Mapping[str, bool]:
    """Return the fields of a kind's payload, and of each whether it has to be given."""
    return {
        f.name: f.default is MISSING and f.default_factory is MISSING
        for f in fields(of.kind.Payload)
    }


_BUILT_IN = {
    "run_command": "relayq.kinds.command",
    "run_batch": "relayq.kinds.batch",
    "run_agent": "relayq.kinds.agent",
    "run_claude": "relayq.kinds.agent",
    "transcode": "relayq.kinds.transcode",
    "transcribe": "relayq.kinds.transcribe",
    "upgrade": "relayq.kinds.upgrade",
}
_declared: dict[str, Declared] = {}


def kind(name: str) -> Callable[[type], type]:
    """Declare the decorated class as the kind `name`, which is also its Celery task's name."""

    def declare(decorated: type) -> type:
        _declared[name] = Declared(name, decorated())
        return decorated

    return declare


def find(name: str) -> Declared:
    """Return the kind of this name."""
    if name not in _declared and name in _BUILT_IN:
        import_module(_BUILT_IN[name])
    if name not in _declared:
        raise RelayqError(f"no such kind: {name!r}; there is {', '.join(names())}")
    return _declared[name]


def names() -> list[str]:
    """Return the names of all kinds."""
    return sorted({*_BUILT_IN, *_declared})
