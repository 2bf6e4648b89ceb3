"""What agents say, whichever agent it is: parsers yield these, everything else reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from relayq.agents.answers import Denial, Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The agent is up; `session_id` can be resumed from now on."""

    session_id: str | None = None
    model: str | None = None
    version: str | None = None
    permission: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """The agent's own words; with `is_partial` the next ones continue the same line."""

    text: str
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The agent uses a tool; `summary` is one short line, such as the command."""

    id: str
    name: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool came back."""

    id: str
    is_error: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """The agent wanted a tool that it may not use, and went on without."""

    denial: Denial


@dataclass(frozen=True, slots=True)
class Retrying:
    """The agent waits for its API and holds a slot meanwhile: no progress, however often it says.

    `status` is the HTTP status, if there was an answer at all.
    """

    attempt: int = 0
    delay: float | None = None
    error: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Answering:
    """The agent's API has begun to answer: what was waited for is over."""


@dataclass(frozen=True, slots=True)
class Limited:
    """What the API says of the account's limit; `utilization` is a share from 0 to 1."""

    resets_at: float | None = None
    sort: str | None = None
    utilization: float | None = None
    is_rejected: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """Anything else that a person may want to read."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The agent's own last word on the run, which decides instead of its exit code.

    `causes` are the agent's own words for what happened, such as claude's subtype and
    terminal_reason. `text` is None where it gave no answer, `is_judged_by_exit` where its format
    has no last word and the exit code had to do.
    """

    is_error: bool
    causes: tuple[str, ...] = ()
    text: str | None = None
    error: str = ""
    status: int | None = None
    structured: Any = None
    has_structured: bool = False
    session_id: str | None = None
    model: str | None = None
    turns: int | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    duration: float | None = None
    api_duration: float | None = None
    retry_after: float | None = None
    denials: tuple[Denial, ...] = ()
    is_judged_by_exit: bool = False


@dataclass(frozen=True, slots=True)
class Exited:
    """What an exit code says by itself, for agents whose codes mean something."""

    causes: tuple[str, ...] = ()
    status: int | None = None
    error: str = ""
    retry_after: float | None = None


Event = (
    Started
    | Said
    | ToolCalled
    | ToolEnded
    | Denied
    | Retrying
    | Answering
    | Limited
    | Noted
    | Finished
    | Exited
)
