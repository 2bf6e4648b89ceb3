"""What Redis keeps of a job, read as the record that it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from relayq.errors import RelayqError
from relayq.model.jobs import JobRecord, JobState, Spec
from relayq.model.progress import Progress
from relayq.store.reading import instant, reason, shown, texts

#: States that a job can be cancelled in.
_LIVE = frozenset(state.value.encode() for state in JobState if not state.is_final)
#: Fields of a word or a name, of which no view expects that they hold more than a line.
_WORDS = ("kind", "queue", "host", "phase", "reason", "account", "asks", "boot", "halted", "fanned")


def record(id: str, raw: Mapping[bytes, bytes], signed: bytes | None) -> JobRecord:
    """Return the record that these fields and this spec make; what it raises, `Reader` names."""
    try:
        return _record(id, texts(raw), signed)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(raw, Mapping) and raw.get(b"state") in _LIVE:
            raise RelayqError(reason(error), hint=f"relayq cancel {shown(id)}") from error
        raise


def _record(id: str, fields: Mapping[str, str], signed: bytes | None) -> JobRecord:
    def number(name: str) -> float | None:
        return instant(fields[name]) if name in fields else None

    def whole(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    try:
        state = JobState(fields["state"])
    except ValueError as error:
        raise RelayqError(
            f"it is {shown(fields['state'])!r}, a state that this relayq doesn't know",
            hint=f"the relayq that wrote it, if it is a newer one; else relayq rm {shown(id)}",
        ) from error
    _check_words(fields)
    return JobRecord(
        id=id,
        kind=fields["kind"],
        state=state,
        queue=fields["queue"],
        priority=int(fields["priority"]),
        created_at=instant(fields["created"]),
        spec=_readable_spec(signed),
        attempt=int(fields.get("attempt", 0)),
        host=fields.get("host"),
        phase=fields.get("phase"),
        reason=fields.get("reason"),
        exit_code=whole("exit"),
        signal=whole("signal"),
        claimed_at=number("claimed"),
        started_at=number("started"),
        finished_at=number("finished"),
        due_at=number("due"),
        cancel_at=number("cancel"),
        pause_at=_asked_at(fields.get("pause")),
        paused_at=number("paused_at"),
        paused=fields.get("paused"),
        failures=int(fields.get("failures", 0)),
        losses=int(fields.get("losses", 0)),
        note=fields.get("note"),
        boot=fields.get("boot"),
        may_run="orphan" in fields,
        overflow_at=number("widens"),
        expires_at=number("expires"),
        progress=noted_in(fields),
        halted=fields.get("halted"),
        fanned=tuple(fields.get("fanned", "").split()),
        **_agents_part(fields),
    )


def _check_words(fields: Mapping[str, str]) -> None:
    if "".join(fields.values()).isprintable():
        return
    for name in _WORDS:
        if not fields.get(name, "").isprintable():
            raise ValueError(f"its {name} isn't a word")


def _agents_part(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what only the records of agents' jobs have, and of those that ask a person."""
    found: dict[str, Any] = {
        name: fields[name] for name in ("account", "question", "asks") if name in fields
    }
    found |= {name: int(fields[name]) for name in ("tokens_in", "tokens_out") if name in fields}
    if "cost_micro" in fields:
        found["cost_usd"] = int(fields["cost_micro"]) / 1e6
    if "question" in fields:
        choices = json.loads(fields.get("choices") or "[]")
        if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
            raise ValueError("its choices are no texts")
        found |= {"choices": tuple(choices), "asked_at": instant(fields["asked_at"])}
    return found


def noted_in(fields: Mapping[str, str]) -> Progress | None:
    """Return the progress that a record's fields tell of."""
    said = fields.get("progress")
    if said is None:
        return None
    found = Progress.from_dict(json.loads(said))
    return None if found is None else replace(found, at=instant(fields["progress_at"]))


def _asked_at(wish: str | None) -> float | None:
    return None if wish is None else instant(str(json.loads(wish)["since"]))


def _readable_spec(signed: bytes | None) -> Spec | None:
    """Read a spec for show only: nothing runs on the word of an unchecked one."""
    if signed is None:
        return None
    try:
        return Spec.from_dict(json.loads(signed.split(b" ", 2)[2]))
    except (ValueError, IndexError, TypeError, AttributeError, RecursionError):
        return None
