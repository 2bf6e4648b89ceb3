"""claude's stream of JSON, and that of those who speak it; tried with 2.1.197."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relayq.agents.answers import Denial, Usage
from relayq.agents.events import (
    Answering,
    Event,
    Finished,
    Limited,
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
    number,
    rows,
    seconds,
    table,
    text,
    whole,
    word,
)

_NOTES = {
    "compact_boundary": "the history was made shorter",
    "model_fallback": "goes on with its other model",
}


class Reader:
    """Reads one run."""

    def __init__(self) -> None:
        self._model: str | None = None
        #: The kind of the last API error, which only the message before the result names.
        self._error: str | None = None

    def feed(self, line: str) -> Sequence[Event]:
        """Return what a line of standard output says."""
        value = table(line)
        if value is None:
            return note(line)
        match value.get("type"):
            case "system":
                return tuple(self._system(value))
            case "assistant":
                return tuple(self._assistant(value))
            case "user":
                return tuple(_tool_results(value))
            case "stream_event" if at(value, "event", "type") == "message_start":
                return (Answering(),)
            case "rate_limit_event":
                return (_limited(at(value, "rate_limit_info")),)
            case "result":
                return (self._finished(value),)
        return ()

    def feed_error(self, line: str) -> Sequence[Event]:
        """Return nothing: only an error at the start stands there."""
        return ()

    def finish(self, exit_code: int | None) -> Sequence[Event]:
        """Return nothing: without its result the run has failed, whatever the exit code."""
        return ()

    def _system(self, value: Mapping[str, Any]) -> Iterator[Event]:
        match value.get("subtype"):
            case "init":
                self._model = word(value.get("model"))
                yield Started(
                    session_id=word(value.get("session_id")),
                    model=self._model,
                    version=word(value.get("claude_code_version")),
                    permission=word(value.get("permissionMode")),
                )
                for server in rows(value.get("mcp_servers")):
                    if server.get("status") == "failed":
                        # The run goes on without its tools, and says so nowhere else.
                        yield Noted(f"MCP server {word(server.get('name'))} failed to start")
            case "api_retry":
                yield Retrying(
                    attempt=count(value.get("attempt")),
                    delay=seconds(value.get("retry_delay_ms")),
                    error=word(value.get("error")) or "",
                    status=whole(value.get("error_status")),
                )
            case str(subtype) if subtype in _NOTES:
                yield Noted(_NOTES[subtype])

    def _assistant(self, value: Mapping[str, Any]) -> Iterator[Event]:
        self._error = word(value.get("error"))
        for part in rows(at(value, "message", "content")):
            if part.get("type") == "text" and (said := text(part.get("text"))):
                # An error's text comes again with the result.
                yield Noted(said[:LONGEST_NOTE], is_error=True) if self._error else Said(said)
            elif part.get("type") == "tool_use":
                yield ToolCalled(
                    id=word(part.get("id")) or "",
                    name=word(part.get("name")) or "?",
                    summary=gist(part.get("input")),
                )

    def _finished(self, value: Mapping[str, Any]) -> Finished:
        errors = value.get("errors")
        listed = [text(item, LONGEST_NOTE) for item in errors] if isinstance(errors, list) else []
        is_error = value.get("is_error") is not False or value.get("subtype") != "success"
        answer = text(value.get("result")) if "result" in value else None
        causes = (value.get("subtype"), value.get("terminal_reason"), value.get("stop_reason"))
        model, usage = _usage(value)
        return Finished(
            is_error=is_error,
            causes=tuple(filter(None, map(word, (*causes, self._error if is_error else None)))),
            text=None if is_error else answer,
            error=(answer or "; ".join(listed))[:LONGEST_NOTE] if is_error else "",
            status=whole(value.get("api_error_status")),
            structured=value.get("structured_output"),
            has_structured="structured_output" in value,
            session_id=word(value.get("session_id")),
            model=model or self._model,
            turns=whole(value.get("num_turns")),
            usage=usage,
            cost_usd=number(value.get("total_cost_usd")),
            duration=seconds(value.get("duration_ms")),
            api_duration=seconds(value.get("duration_api_ms")),
            denials=tuple(map(_denial, rows(value.get("permission_denials"))[:20])),
        )


def _denial(row: Mapping[str, Any]) -> Denial:
    tool = word(row.get("tool_name")) or "?"
    return Denial(tool=tool, input=gist(row.get("tool_input")), allow=tool)


def _tool_results(value: Mapping[str, Any]) -> Iterator[Event]:
    for part in rows(at(value, "message", "content")):
        if part.get("type") == "tool_result":
            content = part.get("content")
            parts = "\n".join(text(row.get("text"), LONGEST_NOTE) for row in rows(content))
            yield ToolEnded(
                id=word(part.get("tool_use_id")) or "",
                is_error=part.get("is_error") is True,
                text=text(content, LONGEST_NOTE) or parts[:LONGEST_NOTE],
            )


def _limited(value: Any) -> Limited:
    resets_at = number(at(value, "resetsAt"))
    return Limited(
        # No instant that a calendar has a date for is greater.
        resets_at=resets_at if resets_at is not None and resets_at < 1e11 else None,
        sort=word(at(value, "rateLimitType")),
        utilization=number(at(value, "utilization")),
        is_rejected=at(value, "status") == "rejected",
    )


def _usage(value: Mapping[str, Any]) -> tuple[str | None, Usage]:
    """Return the model that worked most and all models' tokens."""
    by_model = value.get("modelUsage")
    models = {
        name: Usage(
            input=count(used.get("inputTokens")),
            output=count(used.get("outputTokens")),
            cache_read=count(used.get("cacheReadInputTokens")),
            cache_write=count(used.get("cacheCreationInputTokens")),
        )
        for name, used in (by_model.items() if isinstance(by_model, dict) else ())
        if isinstance(used, dict)
    }
    if models:
        # Whereas `usage` is zero after claude has fallen back from a broken stream (2.1.197).
        most = max(models, key=lambda name: models[name].total)
        return word(most), sum(models.values(), Usage())
    used = value.get("usage")
    return None, Usage(
        input=count(at(used, "input_tokens")),
        output=count(at(used, "output_tokens")),
        cache_read=count(at(used, "cache_read_input_tokens")),
        cache_write=count(at(used, "cache_creation_input_tokens")),
    )
