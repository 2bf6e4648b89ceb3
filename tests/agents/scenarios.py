"""The scenarios by name: each decides the reply to a turn from the turn alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.agents.replies import (
    Cut,
    Fail,
    Refuse,
    Reply,
    Say,
    Scenario,
    Shell,
    Silence,
    Structured,
    Turn,
    Write,
)


def text(turn: Turn, *, answer: str = "the answer is 42") -> Reply:
    """Answer at once."""
    return Say(answer)


def writes(turn: Turn, *, path: str, content: str = "written by the agent\n") -> Reply:
    """Write a file, then say so."""
    return Write(path, content) if turn.results == 0 else Say("the file is written")


def runs(turn: Turn, *, command: str) -> Reply:
    """Run a command line, then say so."""
    return Shell(command) if turn.results == 0 else Say("the command has run")


def structured(turn: Turn, *, value: dict[str, Any]) -> Reply:
    """Answer in the shape that was asked for."""
    return Structured(value) if turn.results == 0 else Say("done")


def loops(turn: Turn, *, command: str = "true") -> Reply:
    """Call a tool for ever."""
    return Shell(command)


def streams_slowly(turn: Turn, *, pieces: int = 8, pause: float = 0.5) -> Reply:
    """Answer piece by piece."""
    return Say(" ".join(f"word{number}" for number in range(pieces)), pieces, pause)


def throttles(turn: Turn, *, retry_after: float | None = None) -> Reply:
    """Refuse for now: too many requests."""
    return Fail(429, "Too many requests, slow down.", retry_after=retry_after)


def limits(turn: Turn, *, resets_at: float) -> Reply:
    """Refuse until the subscription's limit is reset."""
    return Fail(429, "You have reached your usage limit.", resets_at=resets_at)


def fails(turn: Turn, *, status: int, message: str = "it failed") -> Reply:
    """Answer with an HTTP error."""
    return Fail(status, message)


def first(turn: Turn, *, times: int, reply: Reply, then: Scenario) -> Reply:
    """Give one reply so many times, then play another scenario."""
    return reply if turn.number <= times else then(turn)


#: Name: what it plays. Some need arguments, which MockApi.play passes on.
SCENARIOS: dict[str, Callable[..., Reply]] = {
    "text": text,
    "writes a file": writes,
    "runs a command": runs,
    "structured": structured,
    "loops": loops,
    "streams slowly": streams_slowly,
    "throttles": throttles,
    "usage limit": limits,
    "fails": fails,
    "overloaded": partial(fails, status=529, message="Overloaded"),
    "breaks": partial(fails, status=500, message="Internal server error"),
    "unauthorized": partial(fails, status=401, message="Invalid API key"),
    "refuses": lambda turn: Refuse(),
    "cuts": lambda turn: Cut("this is where it"),
    "silence": lambda turn: Silence(),
    "first": first,
}


def scenario(name: str, **arguments: Any) -> Scenario:
    """Return the scenario of that name with its arguments filled in."""
    return partial(SCENARIOS[name], **arguments)
