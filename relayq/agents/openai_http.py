"""What a model behind OpenAI's API answers, as the runner's HTTP client hands it on.

Its first line is `{"type": "http.response", "status": ..., "headers": {...}}` with names of
headers in lower case, or `{"type": "http.error", "message": ...}`; then comes the body, line by
line: `data: {...}` of a stream, or one JSON object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relayq.agents.answers import Usage
from relayq.agents.events import Event, Finished, Said, Started
from relayq.agents.limits import duration_in
from relayq.agents.parsers import Collected, note
from relayq.agents.reading import (
    LONGEST_NOTE,
    at,
    count,
    number,
    rows,
    table,
    text,
    value_in,
    whole,
    word,
)

#: How a model ends without an answer of its own.
_REFUSALS = {"content_filter", "refusal"}


class Reader:
    """Reads one answer."""

    def __init__(self) -> None:
        self._status: int | None = None
        self._headers: Mapping[str, Any] = {}
        self._answer = Collected()
        self._body = Collected()
        self._model: str | None = None
        self._stop: str | None = None
        self._refusal = ""
        self._usage = Usage()
        self._error = ""
        self._code: str | None = None
        self._is_complete = False

    def feed(self, line: str) -> Sequence[Event]:
        """Return what a line says."""
        bare = line.removeprefix("data:").strip()
        if bare == "[DONE]":
            self._is_complete = True
            return ()
        value = table(bare)
        if value is None:
            # A proxy's page, or one object on several lines.
            self._body.add(line + "\n")
            return ()
        return tuple(self._event(value))

    def feed_error(self, line: str) -> Sequence[Event]:
        """Return nothing: there is no program that could write one."""
        return ()

    def finish(self, exit_code: int | None) -> Sequence[Event]:
        """Return the last word on the whole answer."""
        spread = table(str(self._body))
        events = tuple(self._event(spread)) if spread is not None else ()
        failed = not self._is_complete or self._status is None or self._status >= 400
        if failed and not self._error:
            self._error = str(self._body).strip()[:LONGEST_NOTE] or "the answer broke off"
        answer = str(self._answer)
        structured, has_structured = value_in(answer)
        finished = Finished(
            is_error=failed or self._stop in {*_REFUSALS, "length"},
            causes=tuple(filter(None, (self._stop, self._code))),
            text=None if failed else answer,
            error=self._error or self._refusal,
            status=self._status if self._status and self._status >= 400 else None,
            structured=structured,
            has_structured=has_structured,
            model=self._model,
            turns=None if failed else 1,
            usage=self._usage,
            retry_after=self._retry_after(),
        )
        return (*events, finished)

    def _event(self, value: Mapping[str, Any]) -> Iterator[Event]:
        match value.get("type"):
            case "http.response":
                self._status = whole(value.get("status"))
                headers = value.get("headers")
                self._headers = headers if isinstance(headers, dict) else {}
                return
            case "http.error":
                self._error = text(value.get("message"), LONGEST_NOTE)
                yield from note(self._error)
                return
        if error := value.get("error"):
            self._error = text(error, LONGEST_NOTE) or text(at(error, "message"), LONGEST_NOTE)
            self._code = word(at(error, "code")) or word(at(error, "type"))
            return
        yield from self._piece(value)

    def _piece(self, value: Mapping[str, Any]) -> Iterator[Event]:
        """Take one piece of a stream, or the whole answer."""
        if self._model is None and (model := word(value.get("model"))):
            self._model = model
            yield Started(model=model)
        self._take_usage(value.get("usage"))
        for choice in rows(value.get("choices"))[:1]:
            is_whole = "message" in choice
            said = choice.get("message") if is_whole else choice.get("delta")
            if words := text(at(said, "content")):
                self._answer.add(words)
                yield Said(words, is_partial=not is_whole)
            if refusal := text(at(said, "refusal"), LONGEST_NOTE):
                self._refusal, self._stop = (self._refusal + refusal)[:LONGEST_NOTE], "refusal"
            if stop := word(choice.get("finish_reason")):
                self._stop = self._stop or stop
                self._is_complete = True

    def _take_usage(self, used: Any) -> None:
        if isinstance(used, dict):
            cached = count(at(used, "prompt_tokens_details", "cached_tokens"))
            self._usage = Usage(
                input=max(0, count(used.get("prompt_tokens")) - cached),
                output=count(used.get("completion_tokens")),
                cache_read=cached,
            )

    def _retry_after(self) -> float | None:
        """Return how long to wait: what the API says, else when the emptier bucket is full."""
        said = duration_in(text(self._headers.get("retry-after")))
        if said is not None or self._status != 429:
            return said
        resets = (
            duration_in(text(self._headers.get(f"x-ratelimit-reset-{what}")))
            for what in ("requests", "tokens")
            if number_in(self._headers.get(f"x-ratelimit-remaining-{what}")) == 0
        )
        return max((reset for reset in resets if reset is not None), default=None)


def number_in(value: Any) -> float | None:
    """Return the number that a header is, None for anything else."""
    written = text(value).strip()
    return number(float(written)) if re.fullmatch(r"\d{1,12}(\.\d+)?", written) else None
