"""Jobs that jobs submit: how many, until when, and how a cancel goes down."""

from __future__ import annotations

import pytest

from relayq import families
from relayq.errors import RelayqError
from relayq.model.jobs import JobState
from tests.redis.fleet import spec
from tests.redis.scenes import reach


def child(*ancestors, **fields):
    return spec(ancestors=ancestors, **fields)


def test_a_running_job_may_submit_and_its_descendants_are_known(fleet, store):
    root = reach(fleet, JobState.RUNNING)
    one, two = child(root), child(root)
    fleet.dispatcher.submit([one, two])

    found = families.descendants(store, store.jobs.fetch(root))

    assert {record.id for record in found} == {one.id, two.id}
    assert families.descendants(store, store.jobs.fetch(one.id)) == []


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.RUNNING}))
def test_a_job_that_doesnt_run_submits_nothing(fleet, store, state):
    root = reach(fleet, state, on_lost="ask")
    one = child(root)

    with pytest.raises(RelayqError, match=f"{root}, or a job above it, has ended or is to end"):
        fleet.dispatcher.submit([one])

    assert store.jobs.fetch_many([one.id]) == []
    assert store.jobs.family(root) == []


def test_no_more_than_the_grant_says_may_be_unended_at_a_time(fleet, store):
    root = reach(fleet, JobState.RUNNING)
    grant = {"at_once": 2}
    first, second = (child(root, grant=grant) for _ in range(2))
    fleet.dispatcher.submit([first, second])

    with pytest.raises(RelayqError, match="2 jobs that .* aren't ended"):
        fleet.dispatcher.submit([child(root, grant=grant)])

    store.jobs.cancel(first.id)
    fleet.dispatcher.submit([child(root, grant=grant)])


def test_no_more_than_the_grant_says_may_ever_be_made(fleet, store):
    root = reach(fleet, JobState.RUNNING)
    grant = {"most": 2}
    for _ in range(2):
        one = child(root, grant=grant)
        fleet.dispatcher.submit([one])
        store.jobs.cancel(one.id)

    with pytest.raises(RelayqError, match="have submitted 2 jobs, which is all they may"):
        fleet.dispatcher.submit([child(root, grant=grant)])


def test_a_repeated_submit_of_a_child_is_still_that_job(fleet):
    root = reach(fleet, JobState.RUNNING)
    one = child(root, grant={"most": 1})

    assert fleet.dispatcher.submit([one]) == fleet.dispatcher.submit([one])


def test_a_cancel_takes_all_descendants_along(fleet, store):
    root = reach(fleet, JobState.RUNNING)
    one = child(root)
    fleet.dispatcher.submit([one])

    families.cancel(store, [root])

    assert store.jobs.fetch(one.id).state is JobState.CANCELLED
    with pytest.raises(RelayqError, match="is to end"):
        fleet.dispatcher.submit([child(root)])


def test_a_cancel_of_a_job_alone_leaves_its_children(fleet, store):
    root = reach(fleet, JobState.RUNNING)
    one = child(root)
    fleet.dispatcher.submit([one])

    families.cancel(store, root, alone=True)

    assert store.jobs.fetch(one.id).state is JobState.QUEUED
