"""An agent's output, line by line -> events. Parsers never raise, and keep little.

A format has one file (`claude_stream`, `codex_jsonl`, ...); here is what they share, and the two
that know no agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from relayq.agents.events import Event, Finished, Noted, Said
from relayq.agents.reading import (
    LONGEST_LINE,
    LONGEST_NOTE,
    LONGEST_TEXT,
    at,
    rows,
    table,
    text,
)
from relayq.errors import RelayqError


class Parser(Protocol):
    """What reads one run of an agent; lines come without their end, of any length."""

    def feed(self, line: str) -> Sequence[Event]:
        """Return what a line of standard output says."""

    def feed_error(self, line: str) -> Sequence[Event]:
        """Return what a line of standard error says; most of them nothing."""

    def finish(self, exit_code: int | None) -> Sequence[Event]:
        """Return what the end says: a `Finished` where the exit code has to do as last word."""


_MODULES = {
    "claude_stream": "claude_stream",
    "codex_jsonl": "codex_jsonl",
    "gemini_stream": "gemini_stream",
    "openai_http": "openai_http",
}


def parser_named(name: str) -> Parser:
    """Return a fresh parser of this format."""
    if name == "text":
        return Text()
    if name == "jsonl":
        return JsonLines()
    if name not in _MODULES:
        raise RelayqError(f"no such parser: {name!r}")
    parser: Parser = import_module(f"relayq.agents.{_MODULES[name]}").Reader()
    return parser


def note(line: str) -> Sequence[Event]:
    """Return the event of a line that isn't understood."""
    if len(line) > LONGEST_LINE:
        return (Noted(f"(a line of {len(line) / 1e6:.0f} MB, left out here)"),)
    shown = text(line.strip(), LONGEST_NOTE)
    return (Noted(shown),) if shown else ()


class Collected:
    """A text that grows by pieces, up to a limit."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def add(self, piece: str) -> None:
        """Append a piece, or what of it still fits."""
        kept = piece[: max(0, LONGEST_TEXT - self._length)]
        if kept:
            self._pieces.append(kept)
            self._length += len(kept)

    def clear(self) -> None:
        """Begin anew."""
        self._pieces.clear()
        self._length = 0

    def __str__(self) -> str:
        return "".join(self._pieces)


class Text:
    """An agent that only prints: its output is the answer, its exit code the last word."""

    def __init__(self) -> None:
        self._answer = Collected()

    def feed(self, line: str) -> Sequence[Event]:
        """Return the line as the agent's words."""
        said = text(line, LONGEST_TEXT)
        self._answer.add(said + "\n")
        return (Said(said),) if said.strip() else ()

    def feed_error(self, line: str) -> Sequence[Event]:
        """Return nothing: the tail of standard error is looked at when the run has failed."""
        return ()

    def finish(self, exit_code: int | None) -> Sequence[Event]:
        """Return the last word that the exit code stands for; a signal has none."""
        if exit_code is None:
            return ()
        said = str(self._answer).strip()
        failed = exit_code != 0
        return (
            Finished(
                is_error=failed,
                text=said,
                error=said[-LONGEST_NOTE:] if failed else "",
                is_judged_by_exit=True,
            ),
        )


class JsonLines(Text):
    """JSON lines of an agent whose events aren't known one by one: words are found, no more.

    A last word of type `result`, `complete` or `error` would differ from agent to agent, so the
    exit code has to do.
    """

    def feed(self, line: str) -> Sequence[Event]:
        """Return the words that the line's object holds in one of the usual places."""
        value = table(line)
        if value is None:
            return note(line)
        if value.get("type") == "error" or "error" in value:
            message = _first_text(value, ("message",), ("error",), ("error", "message"))
            return (Noted(message or "an error", is_error=True),)
        if at(value, "role") == "user" or at(value, "message", "role") == "user":
            return ()
        words = _words(value)
        self._answer.add(words)
        return (Said(words),) if words.strip() else ()


def _first_text(value: Any, *paths: tuple[str, ...]) -> str:
    return next(filter(None, (text(at(value, *path), LONGEST_NOTE) for path in paths)), "")


def _words(value: Any) -> str:
    for path in (("text",), ("part", "text"), ("message", "content"), ("content",), ("data",)):
        found = at(value, *path)
        if isinstance(found, str):
            return text(found)
        if parts := "".join(text(row.get("text")) for row in rows(found)):
            return parts
    return ""
