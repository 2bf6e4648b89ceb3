"""What Flower is told of a job, played to the state that Celery's own receiver keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from celery.events.state import State

from relayq.flower.events import Shown, told
from relayq.model.jobs import JobRecord, JobState

QUEUED = JobRecord("j", "run_command", JobState.QUEUED, "any", 5, 100.0)
RUNNING = replace(
    QUEUED,
    state=JobState.RUNNING,
    attempt=1,
    host="pi4",
    claimed_at=101.0,
    started_at=102.0,
)
FAILED = replace(RUNNING, state=JobState.FAILED, reason="exit", exit_code=3, finished_at=105.0)
SUCCEEDED = replace(FAILED, state=JobState.SUCCEEDED, exit_code=0)
CANCELLED = replace(FAILED, state=JobState.CANCELLED, exit_code=None)


def played(*records):
    """Return the task that Flower has after it saw the job in these states."""
    state = State()
    for record in records:
        task = state.tasks.get("j")
        shown = None if task is None else Shown(task.state, task.retries or 0)
        for event in told(record, shown, "make all"):
            state.event(event)
    return state.tasks["j"]


@pytest.mark.parametrize(
    ("records", "shown"),
    [
        ([QUEUED], "PENDING"),
        ([QUEUED, RUNNING], "STARTED"),
        ([RUNNING], "STARTED"),
        ([QUEUED, RUNNING, SUCCEEDED], "SUCCESS"),
        ([SUCCEEDED], "SUCCESS"),
        ([FAILED, FAILED], "FAILURE"),
        ([RUNNING, CANCELLED], "REVOKED"),
        ([QUEUED, replace(QUEUED, state=JobState.CANCELLED)], "REVOKED"),
        ([RUNNING, replace(RUNNING, state=JobState.NEEDS_HUMAN)], "RETRY"),
        ([RUNNING, replace(RUNNING, state=JobState.LOST)], "STARTED"),
        ([RUNNING, replace(RUNNING, state=JobState.SCHEDULED)], "RETRY"),
    ],
)
def test_a_job_is_shown_in_the_state_of_its_record(records, shown):
    assert played(*records).state == shown


def test_a_job_that_ended_and_runs_again_is_shown_to_run():
    again = replace(RUNNING, attempt=2, claimed_at=200.0, started_at=201.0)

    assert played(FAILED, replace(FAILED, state=JobState.QUEUED)).state == "RETRY"
    assert played(FAILED, again).state == "STARTED"
    assert played(FAILED, replace(again, state=JobState.SUCCEEDED)).state == "SUCCESS"


def test_a_task_has_the_kind_the_command_the_host_and_the_times_of_its_job():
    task = played(QUEUED, RUNNING, FAILED)

    assert (task.name, task.args, task.routing_key) == ("relayq.run_command", "make all", "any")
    assert task.worker.hostname == "relayq@pi4"
    assert (task.sent, task.received, task.started, task.failed) == (100.0, 101.0, 102.0, 105.0)
    assert task.exception == "exit, exit 3"


def test_what_is_shown_already_is_not_told_again():
    assert list(told(SUCCEEDED, Shown("SUCCESS", 1), "make all")) == []
    assert list(told(QUEUED, Shown("PENDING", 0), "make all")) == []
