"""codex' lines of JSON; tried with 0.169. It has no error codes: only texts say what happened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relayq.agents.answers import Usage
from relayq.agents.events import (
    Event,
    Finished,
    Noted,
    Retrying,
    Said,
    Started,
    ToolCalled,
    ToolEnded,
)
from relayq.agents.parsers import note
from relayq.agents.reading import (
    LONGEST_NOTE,
    at,
    count,
    gist,
    one_line,
    rows,
    table,
    text,
    value_in,
    word,
)

_RECONNECTING = re.compile(r"Reconnecting\.\.\.(?: (\d{1,4})/\d{1,4})?\s*(.*)", re.DOTALL)
_STATUS = re.compile(r"\bstatus:? (\d{3})\b")


class Reader:
    """Reads one run."""

    def __init__(self) -> None:
        self._session: str | None = None
        self._answer: str | None = None
        self._called: set[str] = set()

    def feed(self, line: str) -> Sequence[Event]:
        """Return what a line of standard output says."""
        value = table(line)
        if value is None:
            return note(line)
        match value.get("type"):
            case "thread.started":
                self._session = word(value.get("thread_id"))
                return (Started(session_id=self._session),)
            case "item.started":
                return tuple(self._began(at(value, "item")))
            case "item.completed":
                return tuple(self._completed(at(value, "item")))
            case "error":
                return (_error(text(value.get("message"), LONGEST_NOTE)),)
            case "turn.completed":
                return (self._finished(value, None),)
            case "turn.failed":
                message = text(at(value, "error", "message"), LONGEST_NOTE)
                return (self._finished(value, message or "the turn failed"),)
        return ()

    def feed_error(self, line: str) -> Sequence[Event]:
        """Return nothing: what stands there of interest comes at the start, before any event."""
        return ()

    def finish(self, exit_code: int | None) -> Sequence[Event]:
        """Return nothing: a turn that neither completed nor failed is no success."""
        return ()

    def _began(self, item: Any) -> Iterator[Event]:
        name, summary = _tool(item)
        if name:
            found = word(at(item, "id")) or ""
            # One run has few items in flight; what never ends isn't worth more than this.
            if len(self._called) < 1000:
                self._called.add(found)
            yield ToolCalled(id=found, name=name, summary=summary)

    def _completed(self, item: Any) -> Iterator[Event]:
        match at(item, "type"):
            case "agent_message":
                self._answer = text(at(item, "text"))
                yield Said(self._answer)
            case "reasoning":
                yield from note(text(at(item, "text"), LONGEST_NOTE))
            case "error":
                # May be a mere warning, so it decides nothing.
                yield Noted(text(at(item, "message"), LONGEST_NOTE))
            case _ if _tool(item)[0]:
                found = word(at(item, "id")) or ""
                if found not in self._called:
                    yield from self._began(item)
                self._called.discard(found)
                yield _tool_ended(found, item)

    def _finished(self, value: Mapping[str, Any], error: str | None) -> Finished:
        structured, has_structured = value_in(self._answer)
        status = _STATUS.search(error or "")
        used = value.get("usage")
        cached = count(at(used, "cached_input_tokens"))
        return Finished(
            is_error=error is not None,
            causes=("turn.failed",) if error is not None else (),
            text=self._answer if error is None else None,
            error=error or "",
            status=int(status[1]) if status else None,
            structured=structured,
            has_structured=has_structured,
            session_id=self._session,
            usage=Usage(
                # Its input counts the cached part as well.
                input=max(0, count(at(used, "input_tokens")) - cached),
                output=count(at(used, "output_tokens")),
                cache_read=cached,
                cache_write=count(at(used, "cache_write_input_tokens")),
            ),
        )


def _error(message: str) -> Event:
    if match := _RECONNECTING.match(message):
        cause = match[2].strip().removeprefix("(").removesuffix(")")
        status = _STATUS.search(cause)
        return Retrying(
            attempt=int(match[1] or 0),
            error=one_line(cause),
            status=int(status[1]) if status else None,
        )
    return Noted(message, is_error=True)


def _tool(item: Any) -> tuple[str, str]:
    """Return a tool's name and what it is asked; an empty name for what is none."""
    match at(item, "type"):
        case "command_execution":
            return "shell", gist(at(item, "command"))
        case "mcp_tool_call":
            name = f"{word(at(item, 'server'))}.{word(at(item, 'tool'))}"
            return name, gist(at(item, "arguments"))
        case "file_change":
            changed = (
                f"{word(row.get('kind'))} {word(row.get('path'))}"
                for row in rows(at(item, "changes"))[:20]
            )
            return "edit", one_line(", ".join(changed))
        case "web_search":
            return "web_search", gist(at(item, "query"))
    return "", ""


def _tool_ended(found: str, item: Any) -> ToolEnded:
    code = at(item, "exit_code")
    output = text(at(item, "aggregated_output"), LONGEST_NOTE)
    return ToolEnded(
        id=found,
        is_error=at(item, "status") == "failed" or (isinstance(code, int) and code != 0),
        text=output or text(at(item, "error", "message"), LONGEST_NOTE),
    )
