"""What a run's end means, as one answer with its error class.

An agent's own last word decides, never its exit code: gemini exits with 0 when SIGTERM ends it,
claude when SIGINT does. That relayq ended the run is known only from relayq. Texts are looked at
only where the agent says that it failed, since a good answer may hold any of these words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo

from relayq.agents import limits
from relayq.agents.answers import Answer, ErrorClass, Status, Usage
from relayq.agents.events import Finished
from relayq.agents.order import Order
from relayq.agents.reading import LONGEST_NOTE, value_in
from relayq.agents.summaries import Summary

#: A wait that is announced and longer than this isn't a matter of too many requests.
_LONG_WAIT = 900.0

#: What each class means for the run, before anybody decides on the job.
STATUSES: Mapping[ErrorClass, Status] = {
    ErrorClass.NEEDS_REVIEW: Status.NEEDS_HUMAN,
    ErrorClass.RATE_LIMITED: Status.REQUEUED,
    ErrorClass.USAGE_LIMIT: Status.REQUEUED,
    ErrorClass.OVERLOADED: Status.REQUEUED,
    ErrorClass.TRANSIENT: Status.REQUEUED,
    ErrorClass.AUTH: Status.NEEDS_HUMAN,
    ErrorClass.BILLING: Status.NEEDS_HUMAN,
    ErrorClass.INVALID: Status.FAILED,
    ErrorClass.UNTRUSTED: Status.FAILED,
    ErrorClass.ROOT: Status.FAILED,
    ErrorClass.SESSION_NOT_FOUND: Status.FAILED,
    ErrorClass.SESSION_EXISTS: Status.REQUEUED,
    ErrorClass.SESSION_IN_USE: Status.REQUEUED,
    ErrorClass.CONTEXT_OVERFLOW: Status.FAILED,
    ErrorClass.OUTPUT_LIMIT: Status.REQUEUED,
    ErrorClass.REFUSED: Status.NEEDS_HUMAN,
    ErrorClass.MAX_TURNS: Status.NEEDS_HUMAN,
    ErrorClass.BUDGET: Status.NEEDS_HUMAN,
    ErrorClass.STALLED: Status.REQUEUED,
    ErrorClass.TIMED_OUT: Status.TIMED_OUT,
    ErrorClass.CANCELLED: Status.CANCELLED,
    ErrorClass.CRASHED: Status.REQUEUED,
    ErrorClass.MISSING: Status.FAILED,
}

#: Agents' own words for what happened, which say more than any text.
_CAUSES: Mapping[str, ErrorClass] = {
    "error_max_turns": ErrorClass.MAX_TURNS,
    "max_turns": ErrorClass.MAX_TURNS,
    "error_max_budget_usd": ErrorClass.BUDGET,
    "error_max_structured_output_retries": ErrorClass.NEEDS_REVIEW,
    "refusal": ErrorClass.REFUSED,
    "content_filter": ErrorClass.REFUSED,
    "prompt_too_long": ErrorClass.CONTEXT_OVERFLOW,
    "image_error": ErrorClass.CONTEXT_OVERFLOW,
    "context_length_exceeded": ErrorClass.CONTEXT_OVERFLOW,
    "max_output_tokens": ErrorClass.OUTPUT_LIMIT,
    "length": ErrorClass.OUTPUT_LIMIT,
    "authentication_failed": ErrorClass.AUTH,
    "oauth_org_not_allowed": ErrorClass.AUTH,
    "invalid_api_key": ErrorClass.AUTH,
    "auth": ErrorClass.AUTH,
    "billing_error": ErrorClass.BILLING,
    "insufficient_quota": ErrorClass.BILLING,
    "model_not_found": ErrorClass.INVALID,
    "overloaded": ErrorClass.OVERLOADED,
    "untrusted": ErrorClass.UNTRUSTED,
}
#: The weaker ones, of which a text or a status may know more.
_WEAK_CAUSES: Mapping[str, ErrorClass] = {
    "rate_limit": ErrorClass.RATE_LIMITED,
    "rate_limit_exceeded": ErrorClass.RATE_LIMITED,
    "server_error": ErrorClass.TRANSIENT,
    "invalid_request": ErrorClass.INVALID,
    "input": ErrorClass.INVALID,
    "config": ErrorClass.INVALID,
    "sandbox": ErrorClass.INVALID,
}


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


#: Texts of errors, the first that fits. Apostrophes may be curly, so a dot stands for them.
_TEXTS: tuple[tuple[re.Pattern[str], ErrorClass], ...] = (
    (
        _words(
            r"No conversation found with session",
            r"no rollout found for thread",
            r"Invalid session identifier",
            r"No previous sessions found",
        ),
        ErrorClass.SESSION_NOT_FOUND,
    ),
    (_words(r"Session ID \S+ (is already in use|already exists)"), ErrorClass.SESSION_EXISTS),
    (_words(r"cannot be used with root"), ErrorClass.ROOT),
    (
        _words(r"not running in a trusted directory", r"Not inside a trusted directory"),
        ErrorClass.UNTRUSTED,
    ),
    (_words(r"temporarily limiting requests"), ErrorClass.RATE_LIMITED),
    (
        _words(
            r"credit balance is too low",
            r"out of usage credits",
            r"monthly spend limit",
            r"^Quota exceeded\. Check your plan",
            r"insufficient.quota",
        ),
        ErrorClass.BILLING,
    ),
    (
        _words(
            r"usage limit reached",
            r"You.ve hit your (?:\w+ ){0,2}limit",
            r"out of extra usage",
            r"exhausted your daily quota",
            r"Your quota will reset",
        ),
        ErrorClass.USAGE_LIMIT,
    ),
    (
        _words(
            r"Not logged in",
            r"Invalid API key",
            r"API key not valid",
            r"Incorrect API key",
            r"Failed to authenticate",
            r"Missing environment variable",
            r"Invalid auth method",
            r"Please set an Auth method",
            r"OAuth token (?:has )?(?:expired|been revoked)",
        ),
        ErrorClass.AUTH,
    ),
    (_words(r"prompt is too long", r"context window"), ErrorClass.CONTEXT_OVERFLOW),
    (_words(r"output token maximum"), ErrorClass.OUTPUT_LIMIT),
    (
        _words(r"violate our Usage Policy", r"model returned an empty response"),
        ErrorClass.REFUSED,
    ),
    (
        _words(r"overloaded", r"experiencing high demand", r"server is at capacity"),
        ErrorClass.OVERLOADED,
    ),
    (_words(r"issue with the selected model", r"model .{0,80}not found"), ErrorClass.INVALID),
)
_STATUS_CLASSES: Mapping[int, ErrorClass] = {
    400: ErrorClass.INVALID,
    401: ErrorClass.AUTH,
    402: ErrorClass.BILLING,
    403: ErrorClass.AUTH,
    404: ErrorClass.INVALID,
    408: ErrorClass.TRANSIENT,
    413: ErrorClass.CONTEXT_OVERFLOW,
    429: ErrorClass.RATE_LIMITED,
    503: ErrorClass.OVERLOADED,
    529: ErrorClass.OVERLOADED,
}
#: Texts that say less than a status does.
_WEAK_TEXTS: tuple[tuple[re.Pattern[str], ErrorClass], ...] = (
    (
        _words(r"rate limit", r"too many requests", r"exceeded your current quota"),
        ErrorClass.RATE_LIMITED,
    ),
    (
        _words(
            r"Unable to connect",
            r"timed out",
            r"stream disconnected",
            r"Connection (?:failed|refused|reset|error)",
            r"fetch failed",
            r"API Error: terminated",
            r"socket hang up",
            r"ECONN\w+|ETIMEDOUT|ENOTFOUND",
            r"the answer broke off",
            r"Internal server error",
        ),
        ErrorClass.TRANSIENT,
    ),
    (
        _words(
            r"^error: (unknown option|unexpected argument|unrecognized)",
            r"^Unknown argument",
            r"requires --verbose",
            r"exceeds 10MB",
            r"No input provided",
            r"No prompt provided",
        ),
        ErrorClass.INVALID,
    ),
)


@dataclass(frozen=True, slots=True)
class _Failure:
    """What is known of a failure: the agent's causes, a status, a text, a wait."""

    causes: tuple[str, ...]
    status: int | None
    text: str
    retry_after: float | None


def answer(
    summary: Summary,
    *,
    order: Order,
    stderr: str,
    exit_code: int | None,
    signal: int | None,
    ended_by: str | None,
    now: float,
    zone: tzinfo | None = None,
    usage_before: Usage | None = None,
) -> Answer:
    """Return what a run came to.

    `ended_by` is what relayq itself did: "cancel", "time_limit", "stall", "throttle", "silence"
    (an API took a request and gave no answer), "max_turns", or "lingered" for an agent that had
    said its last word and didn't go. `usage_before` is the session's counter before this run, for
    agents that count all of it.
    """
    blank = _facts(summary, order, usage_before)
    blank = replace(blank, exit_code=exit_code, signal=signal)
    finished = summary.finished
    match ended_by:
        case "cancel":
            return _failed(blank, ErrorClass.CANCELLED, "it was cancelled")
        case "time_limit":
            return _failed(blank, ErrorClass.TIMED_OUT, "its time limit ended it")
    if finished is not None and not finished.is_error:
        return _succeeded(blank, summary, finished, order)
    if ended_by == "max_turns":
        return _failed(blank, ErrorClass.MAX_TURNS, f"it has had {order.max_turns} turns")
    if ended_by == "stall":
        return _failed(blank, ErrorClass.STALLED, "it said nothing for too long")
    if ended_by == "silence":
        said = "its API took the request, and sent nothing back"
        return _failed(blank, ErrorClass.TRANSIENT, said)
    failure = _failure(summary, stderr, ended_by)
    found = _class_of(failure, summary)
    if found is None:
        found = ErrorClass.TRANSIENT if ended_by == "throttle" else ErrorClass.CRASHED
    message = failure.text or _how_it_ended(exit_code, signal)
    return _with_limit(_failed(blank, found, message), failure, summary, now, zone)


def failure(order: Order, error_class: ErrorClass, message: str) -> Answer:
    """Return the answer of a run that never began, for a reason that the runner knows."""
    return _failed(_facts(Summary(), order, None), error_class, message)


def _facts(summary: Summary, order: Order, usage_before: Usage | None) -> Answer:
    """Return the answer with all that is known whatever the end was."""
    finished = summary.finished
    usage, total = (finished.usage if finished else Usage()), None
    if order.adapter.get("usage_is_cumulative") and finished:
        total = usage
        if order.session:
            # Without the counter of before, nobody knows what this run took.
            usage = usage.less(usage_before) if usage_before else Usage()
    session = (finished.session_id if finished else None) or summary.session_id
    return Answer(
        agent=order.agent,
        status=Status.OK,
        agent_version=summary.version,
        model=(finished.model if finished else None) or summary.model or order.model,
        account=f"{order.agent}/{order.account}",
        host=order.host or None,
        cwd=order.cwd,
        session_id=session,
        forked_from=order.session if order.fork and session != order.session else None,
        text=(finished.text or "") if finished and not finished.is_error else summary.said,
        turns=(finished.turns if finished else None) or summary.turns or None,
        usage=usage,
        usage_total=total,
        cost_usd=finished.cost_usd if finished else None,
        duration=finished.duration if finished else None,
        api_duration=finished.api_duration if finished else None,
        denials=summary.denials,
        tool_failures=summary.tool_failures,
    )


def _succeeded(blank: Answer, summary: Summary, finished: Finished, order: Order) -> Answer:
    """Return the answer of a run that says it went well: it may still need somebody to look."""
    session = finished.session_id or summary.session_id
    if order.session and not order.fork and session not in {None, order.session}:
        # codex begins a new thread, and says nothing, for a name that it doesn't know.
        lost = _failed(
            blank,
            ErrorClass.SESSION_NOT_FOUND,
            f"it began a new session instead of {order.session}",
        )
        return replace(lost, is_context_lost=True)
    if order.schema is not None:
        structured, has_structured = finished.structured, finished.has_structured
        if not has_structured and order.adapter.get("parser") in {"text", "jsonl"}:
            structured, has_structured = value_in(finished.text)
        if not has_structured:
            message = "its answer isn't in the form that was asked for"
            return _failed(blank, ErrorClass.NEEDS_REVIEW, message)
        blank = replace(blank, structured=structured)
    if summary.denials:
        tools = ", ".join(dict.fromkeys(denial.tool for denial in summary.denials))
        return _failed(blank, ErrorClass.NEEDS_REVIEW, f"it wasn't allowed to use {tools}")
    return blank


def _failed(blank: Answer, error_class: ErrorClass, message: str) -> Answer:
    return replace(
        blank,
        status=STATUSES[error_class],
        error_class=error_class,
        message=message.strip()[:LONGEST_NOTE],
    )


def _failure(summary: Summary, stderr: str, ended_by: str | None) -> _Failure:
    """Gather what is known of a failure, the agent's last word before all else."""
    finished, exited, waiting = summary.finished, summary.exited, summary.retrying
    if finished is not None:
        status, error, delay = finished.status, finished.error, finished.retry_after
        causes = finished.causes
    else:
        status, error, delay, causes = None, "", None, ()
    if exited is not None:
        causes = (*causes, *exited.causes)
        status, delay = status or exited.status, delay or exited.retry_after
        error = error or exited.error
    if finished is None and waiting is not None and (ended_by == "throttle" or not error):
        status, error = status or waiting.status, error or waiting.error
        causes = (*causes, waiting.error)
    text = error or summary.error or _telling(stderr)
    return _Failure(causes, status, text, delay)


def _telling(stderr: str) -> str:
    """Return the end of standard error without what is only noise, or a help text."""
    stderr = _HELP.split(stderr[-20_000:], maxsplit=1)[0]
    lines = [_COLOUR.sub("", line).strip() for line in stderr.splitlines()]
    kept = [line for line in lines if line and not _NOISE.match(line)]
    return "\n".join(kept)[-LONGEST_NOTE:]


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_HELP = re.compile(r"^(?:Usage|Options|Commands):", re.MULTILINE)
_NOISE = _words(
    r"at (?:async )?\S+ ?\(?",
    r"Warning: ",
    r"WARNING: proceeding",
    r"Reading additional input",
    r"YOLO mode is enabled",
    r"Ripgrep is not available",
    r"\[STARTUP\]",
    r"\(Use `node",
    r"\(node:\d+\)",
)


def _class_of(failure: _Failure, summary: Summary) -> ErrorClass | None:
    """Return the class of a failure, from what says most to what says least."""
    for cause in failure.causes:
        if cause in _CAUSES:
            return _CAUSES[cause]
    by_limit = _limit_class(failure, summary)
    if by_limit is not None:
        return by_limit
    for pattern, error_class in _TEXTS:
        if pattern.search(failure.text):
            return error_class
    if failure.status is not None:
        if failure.status in _STATUS_CLASSES:
            return _STATUS_CLASSES[failure.status]
        return ErrorClass.TRANSIENT if failure.status >= 500 else ErrorClass.INVALID
    for cause in failure.causes:
        if cause in _WEAK_CAUSES:
            return _WEAK_CAUSES[cause]
    lines = failure.text.splitlines()
    for pattern, error_class in _WEAK_TEXTS:
        if any(pattern.search(line) for line in lines):
            return error_class
    return None


def _limit_class(failure: _Failure, summary: Summary) -> ErrorClass | None:
    """Return the class of a failure for want of allowance that says until when."""
    if summary.limited is not None:
        known = summary.limited.resets_at is not None
        return ErrorClass.USAGE_LIMIT if known else ErrorClass.RATE_LIMITED
    if failure.status == 429 and (failure.retry_after or 0) > _LONG_WAIT:
        return ErrorClass.USAGE_LIMIT
    return None


def _with_limit(
    answer: Answer, failure: _Failure, summary: Summary, now: float, zone: tzinfo | None
) -> Answer:
    """Return the answer with the instant of a limit's reset, or the wait that was asked for."""
    delay = failure.retry_after
    if answer.error_class is ErrorClass.USAGE_LIMIT:
        said = limits.sane(summary.limited.resets_at, now) if summary.limited else None
        read = limits.resets_at(failure.text, now=now, zone=zone)
        return replace(
            answer, resets_at=said or read or limits.sane(now + delay if delay else None, now)
        )
    if answer.error_class in {ErrorClass.RATE_LIMITED, ErrorClass.OVERLOADED}:
        return replace(answer, retry_after=delay or limits.delay_in(failure.text))
    return answer


def _how_it_ended(exit_code: int | None, signal: int | None) -> str:
    if signal is not None:
        return f"signal {signal} ended it"
    return f"it ended without a last word (exit code {exit_code})"
