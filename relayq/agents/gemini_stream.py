"""gemini's stream of JSON, and its one JSON object; tried with 0.61.

Much of it stands only on standard error: that it waits for its API, that a tool was withheld, and
in the other format every error. Its exit code is the HTTP status' last eight bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from relayq.agents.answers import Denial, Usage
from relayq.agents.events import (
    Denied,
    Event,
    Exited,
    Finished,
    Noted,
    Retrying,
    Said,
    Started,
    ToolCalled,
    ToolEnded,
)
from relayq.agents.parsers import Collected, note
from relayq.agents.reading import (
    LONGEST_NOTE,
    LONGEST_TEXT,
    at,
    count,
    gist,
    number,
    one_line,
    seconds,
    table,
    text,
    value_in,
    word,
)

#: Its own exit codes, and those that are an HTTP status' last eight bits.
_CAUSES = {
    41: "auth",
    42: "input",
    44: "sandbox",
    52: "config",
    53: "max_turns",
    54: "tool",
    55: "untrusted",
    130: "cancelled",
}
_STATUSES = {status & 0xFF: status for status in (400, 401, 403, 404, 429, 500, 502, 503, 504, 529)}
_ATTEMPT = re.compile(r"Attempt (\d{1,4}) failed(?: with status (\d{3}))?")
_WAITS = re.compile(r"Retrying after (\d{1,9})ms")
_RETRY_AFTER = re.compile(r"Suggested retry after (\d{1,9}(?:\.\d+)?)s")
_STATUS = re.compile(r'\\?"code\\?": ?(\d{3})\b')
_FAILURE = re.compile(r"(?:Terminal|Retryable)QuotaError: |_ApiError: |^Error ")
_WITHHELD = re.compile(
    r'Tool "(?P<missing>[\w.-]{1,100})" not found'
    r'|Tool execution for "(?P<asked>[\w.-]{1,100})" requires user confirmation'
    r'|Tool "?(?P<denied>[\w.-]{1,100})"? (?:was )?denied by policy'
)
#: What it withholds for want of permission; any other name that isn't found is the model's slip.
_GATED = frozenset("run_shell_command write_file replace edit web_fetch save_memory".split())


class Reader:
    """Reads one run."""

    def __init__(self) -> None:
        self._session: str | None = None
        self._model: str | None = None
        self._answer = Collected()
        self._object: list[str] | None = None
        self._object_length = 0
        self._failure = ""
        self._waiting = Retrying()
        #: It ends a loop by itself, and calls that a success.
        self._is_looping = False

    def feed(self, line: str) -> Sequence[Event]:
        """Return what a line of standard output says."""
        if self._object is not None or line.rstrip() == "{":
            return tuple(self._gather(line))
        value = table(line)
        if value is None:
            return note(line)
        return tuple(self._event(value))

    def feed_error(self, line: str) -> Sequence[Event]:
        """Return what a line of standard error says; traces and its many warnings nothing."""
        line = line[:LONGEST_NOTE]
        if match := _ATTEMPT.match(line):
            status = match[2] or next(iter(_STATUS.findall(line)), None)
            cause = one_line(text(line.partition("failed")[2].lstrip(":. ")))
            self._failure = self._failure or text(line)
            self._waiting = Retrying(int(match[1]), None, cause, int(status) if status else None)
            return () if "Max attempts reached" in line else (self._waiting,)
        if match := _WAITS.search(line):
            # The second line of an attempt, whose first has the cause.
            return (replace(self._waiting, delay=float(match[1]) / 1000),)
        if denial := _withheld(line):
            return (Denied(denial),)
        if _FAILURE.search(line) or line.lstrip().startswith('"message":'):
            self._failure = text(line.strip())
        return ()

    def finish(self, exit_code: int | None) -> Sequence[Event]:
        """Return the failure that an exit code stands for; 0 without a result stands for nothing.

        Killed by SIGTERM it exits with 0, too.
        """
        cause, status = _CAUSES.get(exit_code or 0), _STATUSES.get(exit_code or 0)
        if cause is None and status is None:
            return ()
        delay = _RETRY_AFTER.search(self._failure)
        return (
            Exited(
                causes=(cause,) if cause else (),
                status=status,
                error=self._failure,
                retry_after=float(delay[1]) if delay else None,
            ),
        )

    def _gather(self, line: str) -> Iterator[Event]:
        """Take the one object of its other format, whose lines alone say nothing."""
        lines = self._object = self._object or []
        self._object_length += len(line)
        if self._object_length < 4 * LONGEST_TEXT:
            lines.append(line)
        if line.rstrip() == "}":
            self._object, self._object_length = None, 0
            value = table("\n".join(lines))
            if value is not None and "session_id" in value:
                self._session = word(value.get("session_id"))
                self._answer.add(text(value.get("response")))
                if said := str(self._answer):
                    yield Said(said)
                yield self._result(value, at(value, "error"))

    def _event(self, value: Mapping[str, Any]) -> Iterator[Event]:
        match value.get("type"):
            case "init":
                self._session = word(value.get("session_id"))
                self._model = word(value.get("model"))
                yield Started(session_id=self._session, model=self._model)
            case "message" if value.get("role") == "assistant":
                words = text(value.get("content"))
                self._answer.add(words)
                if words:
                    yield Said(words, is_partial=value.get("delta") is True)
            case "tool_use":
                # The words before a tool's use were no answer yet.
                self._answer.clear()
                yield ToolCalled(
                    id=word(value.get("tool_id")) or "",
                    name=word(value.get("tool_name")) or "?",
                    summary=gist(value.get("parameters")),
                )
            case "tool_result":
                yield from _tool_ended(value)
            case "error":
                self._failure = text(value.get("message"), LONGEST_NOTE)
                self._is_looping = self._is_looping or "Loop detected" in self._failure
                yield Noted(self._failure, is_error=True)
            case "result":
                yield self._result(value, value.get("error"))

    def _result(self, value: Mapping[str, Any], error: Any) -> Finished:
        failed = value.get("status", "success") != "success" or error is not None
        failed = failed or self._is_looping
        message = text(at(error, "message"), LONGEST_NOTE)
        status = number(at(error, "code")) or next(map(float, _STATUS.findall(message)), None)
        return self._finished(
            is_error=failed,
            cause="max_turns" if self._is_looping else word(at(error, "type")),
            status=int(status) if status else None,
            error=message or (self._failure if failed else ""),
            stats=value.get("stats"),
        )

    def _finished(
        self,
        *,
        is_error: bool,
        cause: str | None,
        status: int | None,
        error: str,
        stats: Any = None,
    ) -> Finished:
        answer = str(self._answer)
        structured, has_structured = value_in(answer)
        delay = _RETRY_AFTER.search(error) or _RETRY_AFTER.search(self._failure)
        return Finished(
            is_error=is_error,
            causes=tuple(filter(None, (cause,))),
            text=None if is_error else answer,
            error=error,
            status=status,
            structured=structured,
            has_structured=has_structured,
            session_id=self._session,
            model=_busiest(stats) or self._model,
            usage=_usage(stats),
            duration=seconds(at(stats, "duration_ms")),
            retry_after=float(delay[1]) if delay else None,
        )


def _tool_ended(value: Mapping[str, Any]) -> Iterator[Event]:
    message = text(at(value, "error", "message"), LONGEST_NOTE)
    output = text(value.get("output"), LONGEST_NOTE)
    is_error = value.get("status") == "error"
    if is_error and (denial := _withheld(message or output)):
        yield Denied(denial)
    yield ToolEnded(word(value.get("tool_id")) or "", is_error, message or output)


def _withheld(message: str) -> Denial | None:
    match = _WITHHELD.search(message)
    tool = match and (match["missing"] or match["asked"] or match["denied"])
    if not match or not tool or (match["missing"] and tool not in _GATED):
        return None
    return Denial(tool=tool, allow=tool)


def _busiest(stats: Any) -> str | None:
    models = at(stats, "models")
    names = [name for name in models if isinstance(name, str)] if isinstance(models, dict) else []
    return word(max(names, key=lambda name: _total(models[name]), default=None))


def _total(model: Any) -> int:
    return count(at(model, "total_tokens")) or count(at(model, "tokens", "total"))


def _usage(stats: Any) -> Usage:
    """Return the tokens of either format: in one a sum, in the other by model."""
    if at(stats, "input_tokens") is not None:
        cached = count(at(stats, "cached"))
        fresh = max(0, count(at(stats, "input_tokens")) - cached)
        return Usage(input=fresh, output=count(at(stats, "output_tokens")), cache_read=cached)
    models = at(stats, "models")
    used = [at(model, "tokens") for model in models.values()] if isinstance(models, dict) else []
    return sum(
        (
            Usage(
                input=max(0, count(at(tokens, "prompt")) - count(at(tokens, "cached"))),
                output=count(at(tokens, "candidates")) + count(at(tokens, "thoughts")),
                cache_read=count(at(tokens, "cached")),
            )
            for tokens in used
        ),
        Usage(),
    )
