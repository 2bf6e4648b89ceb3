"""Jobs that go where another one runs, and jobs that time ends or widens while they wait."""

from __future__ import annotations

import pytest

from relayq.errors import NoSuchJob
from relayq.model.jobs import JobState
from tests.redis.fleet import LEASE
from tests.redis.scenes import prefer, woken

QUEUED, FAILED = JobState.QUEUED, JobState.FAILED


# Beside another job


def test_a_job_goes_where_another_one_runs(fleet):
    host, other = fleet.host(), fleet.host("other")
    leader = fleet.submit()
    beside = fleet.submit(with_job=leader)
    assert fleet.record(beside).queue == f"with.{leader}"
    assert fleet.nudges(f"with.{leader}") == [], "nobody serves that queue"

    host.claim(leader)

    assert fleet.record(beside).queue == "host.pi4"
    assert other.ask() == "none"
    assert host.claim(beside)


def test_with_needs_it_has_a_queue_of_its_own_on_that_host(fleet):
    host = fleet.host()
    leader = fleet.submit()
    beside = fleet.submit(with_job=leader, resources={"cuda": 1})

    host.claim(leader)

    assert fleet.record(beside).queue == "needs.cuda=1,on=pi4"


def test_a_job_goes_where_another_one_ran(fleet):
    host = fleet.host()
    leader = fleet.submit()
    host.run(leader)

    assert fleet.record(fleet.submit(with_job=leader)).queue == "host.pi4"


def test_a_job_that_waits_for_others_finds_the_host_then(fleet):
    host = fleet.host()
    leader, parent = fleet.submit(), fleet.submit()
    beside = fleet.submit(with_job=leader, after=(parent,))
    host.run(leader)

    host.run(parent)

    assert fleet.record(beside).queue == "host.pi4"


def test_beside_a_job_that_never_ran_nothing_runs(fleet):
    leader = fleet.submit()
    beside = fleet.submit(with_job=leader)
    after = fleet.submit(after=(beside,))

    fleet.cancel(leader)

    assert fleet.states(beside, after) == [FAILED, FAILED]
    assert fleet.record(beside).reason == "upstream"
    assert fleet.state(fleet.submit(with_job=leader)) is FAILED
    assert fleet.retry(beside)[0] == "queued"
    assert fleet.record(beside).queue == "any"


def test_beside_an_unknown_job_is_refused(fleet):
    with pytest.raises(NoSuchJob):
        fleet.submit(with_job="nosuchjob000")


def test_who_waits_beside_a_job_follows_it_to_its_next_host(fleet):
    host, other = fleet.host(), fleet.host("other")
    leader = fleet.submit()
    beside = fleet.submit(with_job=leader)
    host.release(host.claim(leader))

    other.claim(leader)

    assert fleet.record(beside).queue == "host.other"
    assert host.ask() == "none"
    assert woken(fleet, "other") == [""]
    assert other.claim(beside)


def test_who_already_runs_beside_a_job_stays_where_it_is(fleet):
    host, other = fleet.host(), fleet.host("other")
    leader = fleet.submit()
    beside = fleet.submit(with_job=leader)
    token = host.claim(leader)
    host.claim(beside)
    host.release(token)

    other.claim(leader)

    assert fleet.state(beside) is JobState.RUNNING
    assert fleet.record(beside).host == "pi4"


@pytest.mark.parametrize("sort", ["queued", "scheduled", "waiting"])
def test_beside_a_job_that_ends_without_a_host_nothing_waits(fleet, sort):
    leader = fleet.submit()
    options = {
        "queued": {},
        "scheduled": {"due_at": fleet.now() + 60},
        "waiting": {"after": (fleet.submit(host="asleep"),)},
    }[sort]
    beside = fleet.submit(with_job=leader, **options)

    fleet.cancel(leader)

    assert fleet.state(beside) is FAILED
    assert fleet.record(beside).reason == "upstream"


def test_a_forgotten_job_leaves_its_host_to_those_beside_it(fleet, store):
    host, other = fleet.host(), fleet.host("other")
    leader, parent = fleet.submit(), fleet.submit(host="pi4")
    queued = fleet.submit(with_job=leader)
    waiting = fleet.submit(with_job=leader, after=(parent,))
    host.run(leader)

    store.jobs.forget([leader])
    host.run(parent)

    assert [fleet.record(id).queue for id in (queued, waiting)] == ["host.pi4"] * 2
    assert other.ask() == "none"
    assert {host.claim().id, host.claim().id} == {queued, waiting}


def test_a_job_that_was_moved_away_from_another_one_goes_its_own_way(fleet):
    host = fleet.host()
    fleet.host("other")
    leader = fleet.submit()
    beside = fleet.submit(with_job=leader)
    fleet.dispatcher.move(beside, host="other")

    host.claim(leader)

    assert fleet.record(beside).queue == "host.other"
    assert fleet.store.connection.exists(fleet.key("companions", leader)) == 0


def test_whoever_is_listed_beside_a_job_by_mistake_is_left_alone(fleet, store):
    leader, other = fleet.submit(), fleet.submit()
    store.connection.sadd(fleet.key("companions", leader), other)

    fleet.cancel(leader)

    assert fleet.state(other) is QUEUED
    store.jobs.forget([leader])


def test_a_retried_job_that_had_nobody_to_be_with_is_not_ended_by_that_one_again(fleet):
    leader = fleet.submit()
    beside = fleet.submit(with_job=leader)
    fleet.cancel(leader)
    fleet.retry(beside)

    fleet.retry(leader)
    fleet.cancel(leader)

    assert fleet.state(beside) is QUEUED


def test_a_job_beside_another_one_keeps_its_place(fleet):
    host = fleet.host()
    leader = fleet.submit(priority=10)
    first, second = fleet.submit(with_job=leader), fleet.submit(host="pi4")

    host.claim(leader)

    assert [host.claim().id, host.claim().id] == [first, second]


# Jobs that nobody takes


@pytest.mark.parametrize("options", [{}, {"after": True}])
def test_a_job_that_nobody_took_in_time_fails_and_what_comes_after_it(fleet, options):
    after = (fleet.submit(host="asleep"),) if options else ()
    id = fleet.submit(host="asleep", expires=60, after=after)
    child = fleet.submit(after=(id,))
    fleet.tick()
    fleet.clock.advance(61)

    assert fleet.tick(is_regular=True) == [("unclaimed", id)]

    assert fleet.states(id, child) == [FAILED, FAILED]
    assert fleet.record(id).reason == "expired"


def test_a_scheduled_job_expires_by_its_submit_as_well(fleet):
    id = fleet.submit(due_at=fleet.now() + 3600, expires=60)
    fleet.tick()
    fleet.clock.advance(61)

    assert fleet.tick() == [("unclaimed", id)]


def test_no_job_expires_while_the_hosts_had_no_chance_to_take_it(fleet):
    id = fleet.submit(expires=60)
    fleet.tick()
    fleet.clock.advance(61)

    assert fleet.tick(is_regular=False) == []

    fleet.clock.advance(LEASE + 1)
    assert fleet.tick() == [("unclaimed", id)]


def test_time_does_nothing_more_to_what_was_claimed_or_ended(fleet, store):
    host = fleet.host()
    prefer(fleet, "pi4", expires=60)
    cancelled = prefer(fleet, "pi4", expires=60, priority=1)

    host.claim()
    fleet.cancel(cancelled)

    assert store.connection.exists(fleet.key("overflow"), fleet.key("expiring")) == 0
    assert fleet.record(cancelled).overflow_at is None


def test_after_a_step_back_of_the_clock_they_wait_no_longer(fleet):
    fleet.host()
    wide, old = prefer(fleet, "pi4", overflow=20), fleet.submit(expires=60, host="asleep")
    fleet.tick()
    fleet.clock.advance(-3600)
    new = fleet.submit(expires=60, host="asleep")
    fleet.tick(is_regular=False)
    assert fleet.record(wide).overflow_at == pytest.approx(fleet.now() + 20, abs=5)

    fleet.clock.advance(21)
    assert fleet.tick() == [("widened", wide)]
    fleet.clock.advance(LEASE)
    assert {id for _, id in fleet.tick()} == {old, new}


def test_a_job_that_was_taken_in_time_does_not_expire(fleet):
    host, id = fleet.host(), fleet.submit(expires=60)
    fleet.tick()
    token = host.claim(id)
    host.release(token)

    fleet.clock.advance(61)

    assert fleet.tick() == []
    assert fleet.state(id) is QUEUED


def test_an_expired_job_can_be_retried_and_expires_no_more(fleet):
    id = fleet.submit(expires=60)
    fleet.tick()
    fleet.clock.advance(61)
    fleet.tick()

    fleet.retry(id)
    fleet.clock.advance(100)
    fleet.tick()

    assert fleet.state(id) is QUEUED
