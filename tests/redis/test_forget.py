"""forget and prune: ended jobs go, whole; no other does."""

import pytest

from relayq.model.jobs import FINAL, JobState
from tests.redis.fleet import spec
from tests.redis.scenes import reach

DAY = 86_400.0


@pytest.mark.parametrize("state", sorted(FINAL))
def test_an_ended_job_is_forgotten_with_all_its_keys(fleet, store, state):
    fleet.host()
    before = {*store.connection.keys("*"), fleet.key("recent").encode()}
    id = reach(fleet, state, name="encode", group="films", unique="film 1")

    assert store.jobs.forget([id]) == ["forgotten"]

    meta = fleet.key("meta").encode()
    nudges = fleet.key("nudges", "any").encode()
    left = set(store.connection.keys("*")) - before - {meta, nudges}
    # What the host did is still counted.
    assert {key for key in left if not key.startswith(fleet.key("stats").encode())} == set()
    assert store.jobs.forget([id]) == ["gone"]


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL))
def test_a_job_that_has_not_ended_is_not_forgotten(fleet, store, state):
    id = reach(fleet, state)

    assert store.jobs.forget([id]) == [state]

    assert fleet.state(id) is state


def test_many_are_forgotten_in_their_order(fleet, store):
    ended, queued = reach(fleet, JobState.FAILED), fleet.submit()

    words = store.jobs.forget([queued, ended, "nosuchjob000"])

    assert words == ["queued", "forgotten", "gone"]


def test_a_job_that_was_retried_and_ended_again_since_is_younger(fleet, store):
    id = reach(fleet, JobState.FAILED)
    before = fleet.now()
    fleet.clock.advance(10)
    fleet.retry(id)
    fleet.host().run(id)

    assert store.jobs.forget([id], before=before) == ["younger"]


# Prune


def ended_daily(fleet, *states):
    """Return jobs that ended a day after one another, the oldest first; now is a day later."""
    ids = []
    for state in states:
        ids.append(reach(fleet, state))
        fleet.clock.advance(DAY)
    return ids


def left(fleet, ids):
    return [record.id for record in fleet.store.jobs.fetch_many(ids)]


def test_what_is_older_is_pruned(fleet, store):
    ids = ended_daily(fleet, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

    assert store.jobs.prune(FINAL, older_than=1.5 * DAY, keep=0) == 2

    assert left(fleet, ids) == ids[2:]


def test_the_newest_of_all_states_are_kept(fleet, store):
    ids = ended_daily(
        fleet, JobState.FAILED, JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED
    )

    assert store.jobs.prune(FINAL, older_than=0, keep=3) == 1

    assert left(fleet, ids) == ids[1:]


def test_both_limits_hold(fleet, store):
    ids = ended_daily(fleet, *[JobState.SUCCEEDED] * 4)

    assert store.jobs.prune(FINAL, older_than=1.5 * DAY, keep=2) == 2
    assert left(fleet, ids) == ids[2:]
    assert store.jobs.prune(FINAL, older_than=0, keep=2) == 0
    assert store.jobs.prune(FINAL, older_than=0, keep=9) == 0
    assert store.jobs.prune(FINAL, older_than=1.5 * DAY, keep=0) == 1


def test_only_the_asked_states_are_pruned(fleet, store):
    ids = ended_daily(fleet, JobState.SUCCEEDED, JobState.FAILED)

    assert store.jobs.prune([JobState.SUCCEEDED], older_than=0, keep=0) == 1

    assert left(fleet, ids) == ids[1:]


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL))
def test_what_has_not_ended_is_never_pruned(fleet, store, state):
    id = reach(fleet, state)
    fleet.clock.advance(1000 * DAY)

    assert store.jobs.prune(FINAL, older_than=0, keep=0) == 0

    assert left(fleet, [id]) == [id]


@pytest.mark.parametrize("connection", ["redis7"], indirect=True)
def test_more_than_one_call_holds_are_pruned(fleet, store):
    ids = fleet.submit_all([spec() for _ in range(1200)])
    for id in ids:
        fleet.cancel(id)
    fleet.clock.advance(DAY)

    assert store.jobs.prune(FINAL, older_than=1, keep=0) == 1200

    assert left(fleet, ids) == []
