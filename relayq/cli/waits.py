"""What a job that somebody follows waits for between its attempts, said once each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from relayq.cli import show
from relayq.cli.texts import instant, span
from relayq.errors import RelayqError
from relayq.model.accounts import Account, why_not
from relayq.model.jobs import JobRecord, JobState, Outcome

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay

#: What agents wait for; any other class is called by its name.
_WAITS = {
    "rate_limited": "rate limit",
    "usage_limit": "usage limit",
    "transient": "its API can't be reached",
    "session_in_use": "its session is in use",
}


def teller(relay: Relay, result: JobResult) -> Callable[[JobRecord], None]:
    """Return what says on standard error why a job doesn't run yet; told each record of it."""
    said: set[tuple[int, float | None, str]] = set()

    def tell(record: JobRecord) -> None:
        is_retry = record.state is JobState.SCHEDULED and record.attempt > 0
        is_agents = record.spec is not None and bool(record.spec.accounts)
        if not is_retry and not (record.state is JobState.QUEUED and is_agents):
            return
        # A remark isn't worth a failure.
        with suppress(RelayqError):
            store = relay.session().store.accounts
            names = record.spec.accounts if record.spec is not None else ()
            accounts = store.fetch([record.account] if is_retry and record.account else names)
            now = store.now()
            outcome = result.outcome() if is_retry else None
            line = waiting(record, outcome, accounts, now) if is_retry else barred(accounts, now)
            key = (record.attempt, record.due_at, "" if is_retry else line)
            if line and key not in said:
                said.add(key)
                show.remark(f"{record.id}  {line}")

    return tell


def waiting(
    record: JobRecord, outcome: Outcome | None, accounts: Sequence[Account], now: float
) -> str:
    """Say why a job is tried again, and when: `rate limit; again in 36 s`."""
    result = outcome.result if outcome is not None and isinstance(outcome.result, dict) else {}
    why = because(str(result.get("error_class") or ""))
    due = record.due_at or now
    paused = [one for one in accounts if one.until is not None and one.until > due - 1]
    if paused and paused[0].until is not None:
        when = f"{paused[0].name} waits until {_hour(paused[0].until, now)}"
    else:
        when = f"again in {span(max(0.0, due - now))}"
    return f"{why or show.why_failed(record, outcome)}; {when}"


def because(error_class: str) -> str:
    """Return an agent's error class in words."""
    return _WAITS.get(error_class) or error_class.replace("_", " ")


def barred(accounts: Sequence[Account], now: float) -> str:
    """Say why no account of a queued job may be used now, "" if one may."""
    said = [why_not(one, now, lambda at: _hour(at, now)) for one in accounts]
    return "; ".join(said) if all(said) else ""


def _hour(at: float, now: float) -> str:
    """Return an instant in local time, without the date if that is today."""
    shown = datetime.fromtimestamp(at)
    if shown.date() == datetime.fromtimestamp(now).date():
        return f"{shown:%H:%M}" if at - now > 3600 else f"{shown:%H:%M:%S}"
    return instant(at)
