"""What `show` says of an agent's job: who works, what it may do, what it used and asks."""

from __future__ import annotations

from collections.abc import Iterable

from relayq.cli.texts import dollars
from relayq.model.jobs import JobRecord, Outcome, Spec


def asked(spec: Spec) -> Iterable[str]:
    """Say which agent works, and what it may do."""
    asked = spec.payload
    yield str(asked.get("agent", "claude"))
    yield f"permission {asked.get('permission', 'edit')}"
    for name, what in (("model", "model"), ("max_turns", "turns"), ("budget", "budget $")):
        if asked.get(name) is not None:
            yield f"{what} {asked[name]}"
    if asked.get("tools"):
        yield f"may use {' '.join(asked['tools'])}"
    if asked.get("session"):
        yield f"{'fork of' if asked.get('fork') else 'session'} {asked['session']}"
    if len(spec.accounts) > 1:
        yield f"or {', '.join(spec.accounts[1:])}"


def did(record: JobRecord, outcome: Outcome | None) -> Iterable[tuple[str, str]]:
    """Say what an agent's attempts used, and what it asks."""
    if record.account:
        yield "Account", record.account
    result = outcome.result if outcome is not None else None
    if isinstance(result, dict) and result.get("session_id"):
        yield "Session", f"{result['session_id']}, on {record.host} in {result.get('cwd')}"
    used = _used(record)
    if used:
        yield "Used", used
    if record.question:
        yield "Question", record.question
        choices = enumerate(record.choices, 1)
        yield "Choices", "\n".join(f"{number} {text}" for number, text in choices)


def _used(record: JobRecord) -> str:
    """Say what an agent's attempts used, all of them together."""
    tokens = record.tokens_in + record.tokens_out
    parts = [f"{tokens:,} tokens"] if tokens else []
    parts += [dollars(record.cost_usd)] if record.cost_usd else []
    return ", ".join(parts)
