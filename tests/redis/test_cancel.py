"""cancel: what was cancelled ends cancelled, whatever races it."""

import pytest

from relayq.errors import NoSuchJob
from relayq.model.jobs import JobState
from relayq.model.moves import ENDS
from tests.redis.scenes import reach


@pytest.mark.parametrize(
    "state",
    [JobState.WAITING, JobState.SCHEDULED, JobState.QUEUED, JobState.NEEDS_HUMAN],
)
def test_what_is_not_running_is_cancelled_at_once(fleet, state):
    id = reach(fleet, state)

    assert fleet.cancel(id) == ("cancelled", None)

    record = fleet.record(id)
    assert (record.state, record.reason) == (JobState.CANCELLED, "user")
    assert record.finished_at == pytest.approx(fleet.now(), abs=5)
    assert id in fleet.pending_end(id)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_what_has_ended_stays_as_it_is(fleet, state):
    id = reach(fleet, state)

    assert fleet.cancel(id) == (state, None)
    assert fleet.state(id) is state


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.LOST])
def test_a_running_job_is_asked_for_on_its_host(fleet, store, state):
    id = reach(fleet, state)

    assert fleet.cancel(id) == ("asked", "pi4")

    assert fleet.state(id) is state
    assert fleet.record(id).cancel_at == pytest.approx(fleet.now(), abs=5)
    assert store.hosts.listen("pi4", patience=0.1) == {"op": "cancel", "job": id}


def test_an_unknown_job_cannot_be_cancelled(fleet):
    with pytest.raises(NoSuchJob):
        fleet.cancel("nosuchjob000")


def test_a_cancelled_job_is_not_claimed(fleet):
    host = fleet.host()
    fleet.cancel(fleet.submit())

    assert host.ask() == "none"


def test_asking_twice_keeps_the_first_instant(fleet):
    id = reach(fleet, JobState.RUNNING)
    fleet.cancel(id)
    asked_at = fleet.record(id).cancel_at
    fleet.clock.advance(10)

    assert fleet.cancel(id) == ("asked", "pi4")
    assert fleet.record(id).cancel_at == asked_at


@pytest.mark.parametrize("state", sorted(ENDS))
def test_a_cancel_that_came_first_wins_over_any_end(fleet, store, state):
    host = fleet.host()
    token = host.start(fleet.submit(retries=1))
    fleet.cancel(token.id)

    assert host.finish(token, state, exit_code=0) == "cancelled"

    record = fleet.record(token.id)
    assert (record.state, record.reason, record.exit_code) == (JobState.CANCELLED, "user", 0)
    assert store.jobs.outcome(token.id) is not None


def test_a_cancel_that_came_too_late_changes_nothing(fleet):
    host = fleet.host()
    token = host.run(fleet.submit())

    assert fleet.cancel(token.id) == ("succeeded", None)
    assert host.finish(token) == "already"


def test_a_beat_brings_the_cancel_to_a_host_that_missed_it(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.cancel(token.id)

    assert host.beat(token) == ["cancel"]
    assert host.beat(token) == ["cancel"]


def test_a_beat_after_a_lost_lease_brings_the_cancel_too(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.expire()
    fleet.cancel(token.id)

    assert host.beat(token) == ["cancel"]
    assert host.finish(token, JobState.CANCELLED) == "cancelled"


@pytest.mark.parametrize("on_lost", ["retry", "ask", "fail"])
def test_a_cancel_comes_before_every_other_rule_of_the_verdict(fleet, on_lost):
    token = fleet.host().start(fleet.submit(on_lost=on_lost))
    fleet.cancel(token.id)

    fleet.expire()
    fleet.judge()

    record = fleet.record(token.id)
    assert (record.state, record.reason) == (JobState.CANCELLED, "user")


def test_a_cancelled_claim_that_never_beat_is_cancelled_when_it_expires(fleet):
    token = fleet.host().claim(fleet.submit())
    fleet.cancel(token.id)

    fleet.expire()

    assert fleet.state(token.id) is JobState.CANCELLED


def test_a_cancel_wins_when_the_host_reports_the_attempt_gone(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.cancel(token.id)

    assert host.lose(token) == "cancelled"


def test_a_cancel_between_two_attempts_ends_the_job_and_the_old_attempt(fleet):
    host = fleet.host()
    lost = fleet.lose(host, fleet.submit())

    assert fleet.cancel(lost.id) == ("cancelled", None)

    assert host.beat(lost) == ["stale"]
    assert host.finish(lost) == "stale"
    assert fleet.state(lost.id) is JobState.CANCELLED


def test_what_comes_after_a_cancelled_job_fails(fleet):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))

    fleet.cancel(parent)

    assert fleet.record(child).reason == "upstream"


def test_messages_to_a_host_that_sleeps_do_not_pile_up(fleet, store):
    id = reach(fleet, JobState.RUNNING)
    store.connection.rpush(fleet.key("control", "pi4"), *range(1500))

    fleet.cancel(id)

    assert store.connection.llen(fleet.key("control", "pi4")) == 1000


def test_many_are_cancelled_before_anything_starts_in_the_room_that_they_leave(fleet, store):
    ended = reach(fleet, JobState.SUCCEEDED)
    running = reach(fleet, JobState.RUNNING)
    queued = [fleet.submit() for _ in range(3)]

    said = store.jobs.cancel_all([queued[0], running, "nosuchjob000", ended, *queued[1:]])

    words = [word for word, _ in said]
    assert words == ["cancelled", "asked", "gone", "succeeded", "cancelled", "cancelled"]
    assert [host for _, host in said if host] == ["pi4"]
    assert {fleet.state(id) for id in queued} == {JobState.CANCELLED}


def test_a_cancel_of_nothing_asks_nothing(store):
    assert store.jobs.cancel_all([]) == []
