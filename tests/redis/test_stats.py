"""Counts: every end of an attempt is counted once, by day, hour, host and kind."""

from __future__ import annotations

import pytest

from relayq.model.jobs import JobState
from relayq.model.stats import DAY, HOUR, Tally, date_of
from tests.redis.fleet import LEASE


def today(fleet, store, days=1):
    return store.stats.by_day(days, now=fleet.now())


def test_each_end_is_counted_by_host_and_kind(fleet, store):
    pi4, mini = fleet.host("pi4"), fleet.host("mini")
    for state in (JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED):
        pi4.run(fleet.submit(), state)
    mini.run(fleet.submit())

    found = today(fleet, store)

    assert found.keys() == {("pi4", "run_command"), ("mini", "run_command")}
    pi = found["pi4", "run_command"]
    assert (pi.succeeded, pi.failed, pi.timed, pi.waited) == (2, 1, 3, 3)
    assert found["mini", "run_command"].succeeded == 1
    assert store.stats.last_day(now=fleet.now()) == {"pi4": (2, 1), "mini": (1, 0)}


def test_run_time_and_wait_are_summed(fleet, store):
    host = fleet.host()
    id = fleet.submit()
    fleet.clock.advance(20)
    token = host.start(id)
    fleet.clock.advance(5)
    host.finish(token)

    [tally] = today(fleet, store).values()

    assert tally.mean_run == pytest.approx(5, abs=1)
    assert tally.mean_wait == pytest.approx(20, abs=1)


def test_a_second_answer_to_the_same_end_counts_nothing(fleet, store):
    host = fleet.host()
    token = host.start(fleet.submit())
    host.finish(token)
    assert host.finish(token) == "already"

    assert sum(tally.succeeded for tally in today(fleet, store).values()) == 1


def test_a_retry_counts_as_one_and_its_wait_does_not(fleet, store):
    host = fleet.host()
    token = host.start(fleet.submit())
    host.finish(token, JobState.SCHEDULED)
    fleet.clock.advance(2)
    fleet.tick()
    host.run(token.id)

    [tally] = today(fleet, store).values()

    assert (tally.retried, tally.succeeded, tally.failed) == (1, 1, 0)
    assert (tally.timed, tally.waited) == (2, 1)


def test_a_cancel_that_came_first_is_what_counts(fleet, store):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.cancel(token.id)
    host.finish(token)

    [tally] = today(fleet, store).values()

    assert (tally.cancelled, tally.succeeded) == (1, 0)


def test_a_lost_attempt_counts_for_its_host(fleet, store):
    fleet.lose(fleet.host("pi4"), fleet.submit())

    assert today(fleet, store)["pi4", "run_command"].lost == 1


def test_days_and_hours_are_kept_apart_and_go_away(fleet, store):
    host = fleet.host()
    host.run(fleet.submit())
    fleet.clock.advance(2 * DAY)
    host.register()
    host.run(fleet.submit())

    assert sum(tally.succeeded for tally in today(fleet, store, 1).values()) == 1
    assert sum(tally.succeeded for tally in today(fleet, store, 3).values()) == 2
    assert store.stats.last_day(now=fleet.now()) == {"pi4": (1, 0)}
    assert store.stats.last_day(now=fleet.now() + DAY + HOUR) == {}
    kept = [
        store.connection.ttl(key) for key in store.connection.scan_iter(fleet.key("stats", "*"))
    ]
    assert len(kept) == 4
    assert all(0 < left <= 400 * DAY for left in kept)


def test_without_any_end_there_is_nothing(fleet, store):
    assert today(fleet, store, 400) == {}
    assert store.stats.last_day(now=fleet.now()) == {}


def test_the_longest_waiting_job_is_known(fleet, store):
    assert store.places.oldest_queued() is None
    fleet.submit()
    at = fleet.now()
    fleet.clock.advance(LEASE)
    fleet.submit()

    assert store.places.oldest_queued() == pytest.approx(at, abs=2)


def test_tallies_add_up():
    one = Tally(succeeded=2, failed=1, timed=3, run_time=6.0)

    both = one.plus(Tally(succeeded=1, lost=1, waited=1, wait_time=0.5))

    assert both.success_rate == 3 / 5
    assert (both.mean_run, both.mean_wait) == (2.0, 0.5)
    assert (Tally().success_rate, Tally().mean_run, Tally().mean_wait) == (None, None, None)


def test_days_are_counted_apart(fleet, store):
    host = fleet.host()
    host.run(fleet.submit())
    before = int(fleet.now() // DAY)
    fleet.clock.advance(2 * DAY)
    host.beat()
    host.run(fleet.submit(), JobState.FAILED)

    found = store.stats.daily(30, now=fleet.now())

    assert [(tally.succeeded, tally.failed) for tally in found.values()] == [(1, 0), (0, 1)]
    assert list(found) == [date_of(before), date_of(before + 2)]
    assert list(store.stats.daily(1, now=fleet.now())) == [date_of(before + 2)]
