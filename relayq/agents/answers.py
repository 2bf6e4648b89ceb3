"""The one schema of agents' results: what an attempt leaves, whichever agent it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from math import isfinite
from typing import Any


class Status(StrEnum):
    """How an agent's run ended, before anybody decides what becomes of the job."""

    OK = "ok"
    NEEDS_HUMAN = "needs_human"  #: only a person can move it on
    FAILED = "failed"
    REQUEUED = "requeued"  #: it is worth another try later
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class ErrorClass(StrEnum):
    """Why a run isn't a plain success; docs/agents.md says what each leads to."""

    NEEDS_REVIEW = (
        "needs_review"  #: it ended well, but was denied a tool or left out what was asked
    )
    RATE_LIMITED = "rate_limited"  #: too many requests for now
    USAGE_LIMIT = "usage_limit"  #: the account's allowance is used up until an instant
    OVERLOADED = "overloaded"  #: the API has no room
    TRANSIENT = "transient"  #: a broken connection, a server's error
    AUTH = "auth"  #: not logged in, or not allowed
    BILLING = "billing"  #: no credit left
    INVALID = "invalid"  #: the request or the command line is wrong
    UNTRUSTED = "untrusted"  #: the agent refuses to work in this directory
    ROOT = "root"  #: the agent refuses to do that as root
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_EXISTS = "session_exists"  #: an earlier attempt has begun this session
    SESSION_IN_USE = "session_in_use"  #: another job works in it right now
    CONTEXT_OVERFLOW = "context_overflow"  #: the prompt or the history is too long
    OUTPUT_LIMIT = "output_limit"  #: the answer is longer than the model can give
    REFUSED = "refused"  #: the model refuses to answer
    MAX_TURNS = "max_turns"
    BUDGET = "budget"
    STALLED = "stalled"  #: it said nothing for too long, and relayq ended it
    TIMED_OUT = "timed_out"  #: the job's own time limit
    CANCELLED = "cancelled"
    CRASHED = "crashed"  #: it ended without a last word
    MISSING = "missing"  #: its program isn't installed


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, by what they cost."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(self._counts, other._counts, strict=True)))

    def less(self, before: Usage) -> Usage:
        """Return what came after `before`, of counters that only grow."""
        pairs = zip(self._counts, before._counts, strict=True)
        return Usage(*(max(0, now - then) for now, then in pairs))

    @property
    def _counts(self) -> tuple[int, int, int, int]:
        return self.input, self.output, self.cache_read, self.cache_write

    @property
    def total(self) -> int:
        """The sum of all tokens."""
        return sum(self._counts)


@dataclass(frozen=True, slots=True)
class Denial:
    """A tool that the agent wanted and didn't get; `input` is one short line of it.

    `allow` is what `--tool` takes to permit it the next time.
    """

    tool: str
    input: str = ""
    allow: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt of an agent job came to.

    `usage_total` is the session's own counter, where the agent counts the whole session;
    `cost_usd` is the agent's estimate for this attempt.
    """

    agent: str
    status: Status
    agent_version: str | None = None
    model: str | None = None
    account: str | None = None
    host: str | None = None
    cwd: str | None = None
    session_id: str | None = None
    forked_from: str | None = None
    error_class: ErrorClass | None = None
    message: str = ""
    text: str = ""
    structured: Any = None
    resets_at: float | None = None
    retry_after: float | None = None
    turns: int | None = None
    usage: Usage = field(default_factory=Usage)
    usage_total: Usage | None = None
    cost_usd: float | None = None
    duration: float | None = None
    api_duration: float | None = None
    denials: tuple[Denial, ...] = ()
    tool_failures: int = 0
    is_context_lost: bool = False
    exit_code: int | None = None
    signal: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON knows it."""
        return asdict(self) | {"denials": [asdict(denial) for denial in self.denials]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Answer:
        """Return the answer that a report holds; raises `ValueError` for anything else."""
        try:
            return cls(**{f.name: _read(f.name, raw[f.name]) for f in fields(cls) if f.name in raw})
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"no answer of an agent: {error}") from error


_TEXTS = frozenset({"agent", "message", "text"})
_WORDS = frozenset(
    {"agent_version", "model", "account", "host", "cwd", "session_id", "forked_from"}
)
_NUMBERS = frozenset({"resets_at", "retry_after", "cost_usd", "duration", "api_duration"})
_COUNTS = frozenset({"turns", "exit_code", "signal"})


def _read(name: str, value: Any) -> Any:
    """Return a field's value, or raise: a report lies where its own job can write."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = True
    if name == "status":
        return Status(value)
    if name == "error_class":
        return None if value is None else ErrorClass(value)
    if name == "usage" or (name == "usage_total" and value is not None):
        return _usage(value)
    if name == "denials":
        return tuple(_denial(denial) for denial in value)
    if name in _TEXTS:
        fits = isinstance(value, str)
    elif name in _WORDS:
        fits = value is None or isinstance(value, str)
    elif name in _NUMBERS:
        fits = value is None or (is_number and isfinite(value))
    elif name in _COUNTS:
        fits = value is None or (is_number and isinstance(value, int))
    elif name == "tool_failures":
        fits = is_number and isinstance(value, int)
    elif name == "is_context_lost":
        fits = isinstance(value, bool)
    if not fits:
        raise ValueError(f"no answer of an agent: {name} is {str(value)[:40]!r}")
    return value


def _usage(value: Any) -> Usage:
    used = Usage(**value)
    if not all(isinstance(count, int) and count >= 0 for count in asdict(used).values()):
        raise ValueError("no answer of an agent: tokens are counts")
    return used


def _denial(value: Any) -> Denial:
    denial = Denial(**value)
    if not all(isinstance(text, str) for text in asdict(denial).values()):
        raise ValueError("no answer of an agent: a denial is texts")
    return denial
