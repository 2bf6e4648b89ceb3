"""What a mock model may answer, in no API's own words, and what it is told of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """A request for the model's next words.

    `number` counts the requests of the scenario, from 1; `results` the tool results that the
    conversation holds. `said` is all of its text, as the model would read it.
    """

    number: int
    prompt: str
    results: int
    said: str
    tools: frozenset[str]


@dataclass(frozen=True)
class Say:
    """A text, in so many pieces with a pause before each."""

    text: str
    pieces: int = 1
    pause: float = 0.0


@dataclass(frozen=True)
class Write:
    """A call of the tool that writes a file."""

    path: str
    content: str = "written by the agent\n"


@dataclass(frozen=True)
class Shell:
    """A call of the tool that runs a command line."""

    command: str


@dataclass(frozen=True)
class Structured:
    """An answer in the shape that was asked for, after a pause."""

    value: Mapping[str, Any]
    pause: float = 0.0


@dataclass(frozen=True)
class Fail:
    """An HTTP error. `resets_at` makes a 429 the usage limit of a subscription."""

    status: int
    message: str
    retry_after: float | None = None
    resets_at: float | None = None


@dataclass(frozen=True)
class Refuse:
    """The model declines to answer."""


@dataclass(frozen=True)
class Cut:
    """The connection ends in the middle of this text."""

    text: str


@dataclass(frozen=True)
class Silence:
    """The request is accepted and never answered."""


Reply = Say | Write | Shell | Structured | Fail | Refuse | Cut | Silence
Scenario = Callable[[Turn], Reply]
