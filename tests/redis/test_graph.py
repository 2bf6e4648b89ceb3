"""What comes after a job is released or failed by the very call that ends the job."""

import pytest

from relayq.model.jobs import JobState
from tests.redis.fleet import spec


def test_a_job_after_another_waits_and_nudges_nobody(fleet):
    parent = fleet.submit()

    child = fleet.submit(after=(parent,))

    assert fleet.state(child) is JobState.WAITING
    assert [nudge["headers"]["id"] for nudge in fleet.nudges()] == [parent]


def test_parents_and_children_may_come_in_one_batch(fleet):
    parent = spec()
    child = spec(after=(parent.id,))

    placed = fleet.dispatcher.submit([parent, child])

    assert [one.state for one in placed] == [JobState.QUEUED, JobState.WAITING]


def test_the_finish_of_the_parent_queues_and_nudges_the_child(fleet):
    host = fleet.host()
    parent = fleet.submit()
    child = fleet.submit(after=(parent,), host="mini")

    host.run(parent)

    assert fleet.state(child) is JobState.QUEUED
    assert [nudge["headers"]["id"] for nudge in fleet.nudges("host.mini")] == [child]
    assert fleet.host("mini").claim(child)


def test_a_child_waits_for_all_its_parents(fleet):
    host = fleet.host()
    parents = [fleet.submit() for _ in range(3)]
    child = fleet.submit(after=tuple(parents))

    host.run(parents[0])
    host.run(parents[1])
    assert fleet.state(child) is JobState.WAITING
    host.run(parents[2])

    assert fleet.state(child) is JobState.QUEUED


def test_a_parent_that_is_named_twice_counts_once(fleet):
    parent = fleet.submit()
    child = fleet.submit(after=(parent, parent))

    fleet.host().run(parent)

    assert fleet.state(child) is JobState.QUEUED


def test_a_child_of_a_job_that_has_succeeded_is_queued_at_once(fleet):
    parent = fleet.submit()
    fleet.host().run(parent)

    assert fleet.state(fleet.submit(after=(parent,))) is JobState.QUEUED


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_child_of_a_job_that_did_not_succeed_has_failed_at_once(fleet, state):
    parent = fleet.submit()
    fleet.host().run(parent, state)

    child = fleet.submit(after=(parent,))

    record = fleet.record(child)
    assert (record.state, record.reason) == (JobState.FAILED, "upstream")
    assert record.finished_at is not None
    assert fleet.nudges()[1:] == []


def test_a_child_that_fails_at_submit_is_announced_like_any_end(fleet):
    parent = fleet.submit()
    fleet.cancel(parent)

    child = fleet.submit(after=(parent,))

    assert child in fleet.pending_end(child)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_failure_goes_down_the_whole_graph_at_once(fleet, state):
    host = fleet.host()
    root = fleet.submit()
    left, right = fleet.submit(after=(root,)), fleet.submit(after=(root,))
    bottom = fleet.submit(after=(left, right))
    below = fleet.submit(after=(bottom,))
    aside = fleet.submit()

    host.run(root, state)

    failed = [left, right, bottom, below]
    assert fleet.states(*failed) == [JobState.FAILED] * 4
    assert {fleet.record(id).reason for id in failed} == {"upstream"}
    assert all(id in fleet.pending_end(id) for id in failed)
    assert fleet.state(aside) is JobState.QUEUED


def test_a_long_chain_fails_in_one_call(fleet):
    ids = [fleet.submit()]
    chain = [spec(after=(ids[0],))]
    for _ in range(300):
        chain.append(spec(after=(chain[-1].id,)))
    fleet.submit_all(chain)

    fleet.host().run(ids[0], JobState.FAILED)

    assert fleet.state(chain[-1].id) is JobState.FAILED


def test_a_parked_parent_keeps_its_children_waiting(fleet):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))

    fleet.host().run(parent, JobState.NEEDS_HUMAN)

    assert fleet.state(child) is JobState.WAITING


@pytest.mark.parametrize(
    ("answer", "state"),
    [(JobState.SUCCEEDED, JobState.QUEUED), (JobState.FAILED, JobState.FAILED)],
)
def test_resolving_a_parent_settles_its_children(fleet, answer, state):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))
    fleet.host().run(parent, JobState.NEEDS_HUMAN)

    fleet.resolve(parent, answer)

    assert fleet.state(child) is state


def test_a_retry_of_its_own_keeps_the_children_waiting(fleet):
    host = fleet.host()
    parent = fleet.submit(retries=1)
    child = fleet.submit(after=(parent,))
    host.run(parent, JobState.SCHEDULED)
    assert fleet.state(child) is JobState.WAITING

    fleet.clock.advance(2)
    fleet.tick()
    host.run(parent)

    assert fleet.state(child) is JobState.QUEUED


def test_a_verdict_fails_the_children_too(fleet):
    parent = fleet.submit(on_lost="fail")
    child = fleet.submit(after=(parent,))

    fleet.lose(fleet.host(), parent)

    assert fleet.record(child).reason == "upstream"


def test_a_child_that_was_cancelled_stays_so_when_its_parent_succeeds(fleet):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))
    fleet.cancel(child)

    fleet.host().run(parent)

    assert fleet.state(child) is JobState.CANCELLED


def test_a_parent_that_runs_twice_releases_a_child_of_two_only_once(fleet):
    host = fleet.host()
    twice, other = fleet.submit(), fleet.submit(host="elsewhere")
    child = fleet.submit(after=(twice, other))
    host.run(twice)
    fleet.retry(twice)
    host.run(twice)

    assert fleet.state(child) is JobState.WAITING


def test_a_late_outcome_of_a_parent_releases_nobody(fleet):
    host = fleet.host()
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))
    lost = fleet.lose(host, parent)

    assert host.finish(lost) == "stale"

    assert fleet.state(child) is JobState.WAITING


def test_a_released_child_that_is_due_later_waits_until_then(fleet):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,), due_at=fleet.now() + 3600)

    fleet.host().run(parent)

    assert fleet.state(child) is JobState.SCHEDULED
