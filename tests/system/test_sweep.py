"""A worker mends what something else damaged in Redis, so that no job is stuck for it."""

from __future__ import annotations

import pytest

from relayq.model.jobs import JobState

pytestmark = pytest.mark.system


def test_a_worker_finds_a_job_that_no_queue_has(mended_fleet):
    mended_fleet.end_worker()
    result = mended_fleet.job.run("echo found")
    store = mended_fleet.relay.session().store
    store.connection.delete(store.keys("queue", "any"), store.keys("nudges", "any"))

    mended_fleet.start_worker()

    assert result.get(timeout=30) == "found"
    assert "mended" in [event.what for event in store.events.read()]


def test_a_job_whose_parents_record_is_gone_does_not_wait_for_ever(mended_fleet):
    mended_fleet.end_worker()
    parent = mended_fleet.job.run("true")
    child = mended_fleet.job.run("true", after=[parent])
    store = mended_fleet.relay.session().store
    store.connection.delete(store.keys("job", parent.id))

    mended_fleet.start_worker()

    assert child.wait(30).state is JobState.FAILED
    assert child.reason == "upstream"
