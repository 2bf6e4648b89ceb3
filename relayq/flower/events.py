"""What became of a job, in the events of a Celery task; no Flower and no Redis here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relayq.model.jobs import JobRecord, JobState

Event = Mapping[str, Any]

#: A task's state of Celery's, for each of ours.
_STATES = {
    JobState.WAITING: "PENDING",
    JobState.SCHEDULED: "PENDING",
    JobState.QUEUED: "PENDING",
    JobState.RUNNING: "STARTED",
    JobState.LOST: "STARTED",
    JobState.NEEDS_HUMAN: "RETRY",
    JobState.SUCCEEDED: "SUCCESS",
    JobState.FAILED: "FAILURE",
    JobState.CANCELLED: "REVOKED",
}
_ENDED = ("SUCCESS", "FAILURE", "REVOKED")
_TYPES = {
    "RETRY": "task-retried",
    "SUCCESS": "task-succeeded",
    "FAILURE": "task-failed",
    "REVOKED": "task-revoked",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What Flower shows of a job so far."""

    state: str
    attempt: int


def worker_name(host: str | None) -> str:
    """Return the name that Celery gives a host's worker; "" for a job that no host had."""
    return f"relayq@{host}" if host else ""


def told(record: JobRecord, shown: Shown | None, command: str) -> Iterator[Event]:
    """Yield the events that bring what is shown of a job up to its record."""

    def event(what: str, at: float | None, host: str, **more: Any) -> Event:
        return {
            "type": what,
            "uuid": record.id,
            "hostname": host,
            "timestamp": at or record.created_at,
            # Nobody's heartbeat: it tells of a job, and maybe of a past one.
            "local_received": 0,
            "clock": 0,
            "pid": 0,
            "name": f"relayq.{record.kind}",
            "retries": record.attempt,
            **more,
        }

    state, is_new = "PENDING", shown is None
    if shown is None:
        who = "" if record.spec is None else record.spec.submitter
        facts: dict[str, Any] = {"args": command, "kwargs": "{}", "queue": record.queue}
        facts |= {"routing_key": record.queue, "retries": 0}
        yield event("task-sent", record.created_at, who, **facts)
    else:
        state = shown.state
    before = 0 if shown is None else shown.attempt
    has_begun = record.attempt > before and record.claimed_at is not None
    wanted = _STATES[record.state]
    if record.attempt and wanted == "PENDING":
        wanted = "RETRY"
    worker = worker_name(record.host)
    # Celery lets a task that ended begin again only by way of a retry.
    if not is_new and state in _ENDED and (has_begun or wanted != state):
        yield event("task-retried", record.claimed_at, worker, exception="again")
        state = "RETRY"
    if has_begun:
        yield event("task-received", record.claimed_at, worker)
        yield event("task-started", record.started_at or record.claimed_at, worker)
        state = "STARTED"
    if wanted != state and wanted in _TYPES:
        yield event(_TYPES[wanted], record.finished_at, worker, **_end(record, wanted))


def _end(record: JobRecord, wanted: str) -> dict[str, Any]:
    if wanted == "SUCCESS":
        return {"result": f"exit {record.exit_code or 0}", "runtime": record.duration or 0.0}
    if wanted == "REVOKED":
        return {"terminated": record.attempt > 0, "expired": False}
    if record.state is JobState.NEEDS_HUMAN:
        return {"exception": f"needs a person: {record.question or 'relayq review'}"}
    why = record.reason or record.state.value
    if record.exit_code is not None:
        why = f"{why}, exit {record.exit_code}"
    if record.signal is not None:
        why = f"{why}, signal {record.signal}"
    return {"exception": why, "traceback": f"relayq show {record.id}"}
