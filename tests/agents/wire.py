"""What every API's dialect is made of: messages to send over HTTP, whole or as an event stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.agents.replies import Reply, Turn


@dataclass(frozen=True)
class Pause:
    """Wait before the next event."""

    seconds: float


class CutOff(Exception):
    """The connection is to end here, without the stream's end."""


@dataclass(frozen=True)
class Whole:
    """A JSON answer."""

    body: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Server-sent events: (name, payload) pairs and pauses; a name of "" is left out."""

    events: Iterator[tuple[str, Mapping[str, Any] | str] | Pause]


class Dialect(Protocol):
    """One API: how its requests are read and its replies written."""

    def reads(self, path: str) -> bool:
        """Tell whether requests to this path are this API's."""

    def is_aside(self, path: str, body: Mapping[str, Any]) -> bool:
        """Tell whether a program asks beside the conversation: tokens, titles, routing."""

    def turn(self, body: Mapping[str, Any], number: int) -> Turn:
        """Read a request."""

    def answer_aside(self, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        """Answer what is asked beside the conversation."""

    def answer(self, reply: Reply, path: str, body: Mapping[str, Any]) -> Whole | Stream:
        """Write a reply."""


def pieces_of(text: str, pieces: int) -> list[str]:
    """Cut a text into pieces of about one length."""
    size = -(-len(text) // max(1, pieces))
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def event(name: str, payload: Mapping[str, Any] | str) -> bytes:
    """Return a server-sent event."""
    written = payload if isinstance(payload, str) else json.dumps(payload)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {written}\n\n".encode()


def texts(node: Any) -> Iterator[str]:
    """Yield every text of a JSON value, however deep; what sort of thing each is, is none."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            if name not in {"type", "role", "cache_control"}:
                yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
