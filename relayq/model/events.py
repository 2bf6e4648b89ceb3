"""What happened: a line of the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relayq.model.jobs import JobRecord


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a job or a host, on the broker's clock.

    `what` is mostly a past participle, such as `claimed`. `who` is the person (user@host) whose act
    it was, `count` of how many jobs the event tells, of which `job` is the first. `seconds` is by
    how much a clock stepped, or how long nobody had let time pass. `account` is an agent's.
    """

    id: str
    at: float
    what: str
    job: str | None = None
    host: str | None = None
    attempt: int | None = None
    who: str | None = None
    state: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    queue: str | None = None
    priority: int | None = None
    due_at: float | None = None
    seconds: float | None = None
    install: str | None = None
    account: str | None = None
    schedule: str | None = None
    count: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return every field as JSON can hold it."""
        return {name: getattr(self, name) for name in self.__slots__}


def with_submit(record: JobRecord, events: Sequence[Event]) -> Sequence[Event]:
    """Return a job's events with its submit, which may be told with others', or no longer."""
    if events and events[0].what == "submitted":
        return events
    submitted = Event(
        id="",
        at=record.created_at,
        what="submitted",
        job=record.id,
        who=None if record.spec is None else record.spec.submitter or None,
        queue=None if record.spec is None else record.spec.queue,
    )
    return [submitted, *events]
