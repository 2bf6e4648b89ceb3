"""A job that becomes others: it waits for them, however they end, and collects what they did."""

import pytest

from relayq.dispatch import TEMPLATE
from relayq.model.jobs import JobState
from tests.redis.fleet import spec

# The scripts know no difference between versions here: tests/redis/test_moves.py meets them all.
pytestmark = pytest.mark.parametrize("connection", ["redis7", "fakeredis"], indirect=True)

WAITING, QUEUED, RUNNING = JobState.WAITING, JobState.QUEUED, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED


def expand(fleet, token, *children):
    return fleet.store.leases.expand(token, list(children), template=TEMPLATE)


@pytest.fixture
def fanned(fleet):
    """A job that has become two, and these."""
    host = fleet.host()
    parent = fleet.submit()
    token = host.start(parent)
    children = fleet.submit_all([spec(), spec()])
    assert expand(fleet, token, *children) == "waiting"
    return parent, *children


def test_it_waits_without_a_host_until_all_of_them_have_ended(fleet, store, fanned):
    parent, one, other = fanned
    host = fleet.host()
    record = fleet.record(parent)
    assert (record.state, record.fanned) == (WAITING, (one, other))
    assert not store.connection.exists(fleet.key("active", "pi4"))

    host.run(one, FAILED)
    assert fleet.state(parent) is WAITING
    host.run(other)

    assert fleet.state(parent) is QUEUED
    claim = host.ask()
    assert (claim.token.id, claim.token.attempt, claim.fanned) == (parent, 2, (one, other))


def test_a_claim_of_any_other_job_says_that_it_became_none(fleet):
    fleet.submit()

    assert fleet.host().ask().fanned == ()


def test_what_comes_after_it_waits_for_all_of_it(fleet, fanned):
    parent, one, other = fanned
    child = fleet.submit(after=(parent,))
    host = fleet.host()
    host.run(one)
    host.run(other)
    assert fleet.state(child) is WAITING

    host.run(parent)

    assert fleet.state(child) is QUEUED


def test_it_is_queued_at_once_when_they_have_ended_before(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    child = fleet.submit()
    host.run(child)

    assert expand(fleet, token, child) == "queued"

    assert host.ask().fanned == (child,)


def test_who_lost_the_job_changes_nothing_and_a_repeat_is_harmless(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    [child] = fleet.submit_all([spec(host="elsewhere")])
    assert expand(fleet, token, "nosuchjob000") == "no_child"
    assert expand(fleet, token, child) == "waiting"

    assert expand(fleet, token, child) == "already"
    assert host.finish(token) == "already"
    assert host.beat(token) == ["stale"]
    assert fleet.state(token.id) is WAITING

    lost = host.start(fleet.submit())
    host.lose(lost)
    assert expand(fleet, lost, child) == "stale"
    fleet.cancel(lost.id)
    fleet.store.jobs.forget([lost.id])
    assert expand(fleet, lost, child) == "gone"
    with pytest.raises(ValueError, match="becomes no other"):
        expand(fleet, lost)


def test_a_cancel_of_it_cancels_them_and_asks_those_that_run(fleet, fanned):
    parent, one, other = fanned
    token = fleet.host().start(one)

    assert fleet.cancel(parent) == ("cancelled", None)

    assert fleet.states(parent, one, other) == [CANCELLED, RUNNING, CANCELLED]
    assert fleet.host().beat(token) == ["cancel"]


def test_a_cancel_that_came_before_it_expanded_cancels_them_too(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    child = fleet.submit()
    fleet.cancel(token.id)

    assert expand(fleet, token, child) == "cancelled"

    assert fleet.states(token.id, child) == [CANCELLED, CANCELLED]


def test_a_retry_runs_those_again_that_failed_and_then_collects(fleet, fanned):
    parent, one, other = fanned
    host = fleet.host()
    host.run(one, FAILED)
    host.run(other)
    host.run(parent, FAILED)

    fleet.dispatcher.retry(parent)

    assert fleet.states(parent, one, other) == [WAITING, QUEUED, SUCCEEDED]
    host.run(one)
    assert host.ask().fanned == (one, other)


def test_a_rerun_of_what_is_before_it_forgets_them(fleet):
    host = fleet.host()
    first = fleet.submit()
    again = spec(after=(first,))
    fleet.submit_all([again])
    host.run(first)
    token = host.start(again.id)
    [child] = fleet.submit_all([spec()])
    expand(fleet, token, child)
    host.run(child)
    host.run(again.id)
    fleet.retry(first)
    host.run(first, FAILED)

    assert fleet.dispatcher.rerun([first, again.id]) == (first, again.id)

    assert fleet.store.jobs.fetch_many([child]) == []
    assert fleet.record(again.id).fanned == ()
    host.run(first)
    assert host.ask().fanned == ()


def test_one_that_is_lost_while_it_collects_collects_again(fleet, fanned):
    parent, one, other = fanned
    host = fleet.host()
    host.run(one)
    host.run(other)
    host.lose(host.start(parent))

    assert host.ask().fanned == (one, other)
