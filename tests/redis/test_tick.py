"""tick: what happens because time passed, and what doesn't, when the broker itself was away."""

import pytest

from relayq.model.jobs import JobState
from relayq.store.leases import Keep
from tests.redis.fleet import KEEP, LEASE, TIMES
from tests.redis.scenes import reach

DAY = 86_400.0


def restart_broker(fleet):
    """Make the data set look as if it was last seen by another run of Redis."""
    fleet.store.connection.hset(fleet.key("meta"), "run_id", "an earlier run")


def test_a_tick_with_nothing_to_do_does_nothing(fleet):
    fleet.host().start(fleet.submit())

    assert fleet.tick() == []
    assert fleet.tick() == []


def test_nothing_expires_in_the_first_lease_after_a_restart_of_the_broker(fleet):
    token = fleet.host().start(fleet.submit())
    fleet.tick()
    restart_broker(fleet)

    assert fleet.expire() == []
    fleet.clock.advance(LEASE - 2)
    assert fleet.tick() == []
    fleet.clock.advance(4)
    assert fleet.tick() == [("expired", token.id)]


def test_nothing_is_judged_in_the_first_lease_after_a_restart_of_the_broker(fleet):
    id = reach(fleet, JobState.LOST)
    restart_broker(fleet)

    assert fleet.judge() == []
    fleet.clock.advance(LEASE + 1)
    assert fleet.tick() == [("judged", id)]


def test_a_host_that_is_back_within_the_window_keeps_its_jobs(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.tick()
    restart_broker(fleet)
    fleet.expire()

    assert host.beat(token) == ["ok"]

    fleet.clock.advance(LEASE - 1)
    assert fleet.tick() == []
    assert fleet.state(token.id) is JobState.RUNNING


def test_due_jobs_do_not_wait_for_the_window(fleet):
    id = reach(fleet, JobState.SCHEDULED)
    fleet.tick()
    restart_broker(fleet)
    fleet.clock.advance(3601)

    assert fleet.tick() == [("due", id)]


def test_the_first_tick_of_a_new_data_set_opens_no_window(fleet):
    token = fleet.host().start(fleet.submit())

    assert fleet.expire() == [("expired", token.id)]


# A clock that jumps, a broker that was asleep, a fleet that was away


def test_nothing_expires_when_the_brokers_clock_is_set_forward(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.tick()
    fleet.clock.advance(3600)

    assert fleet.tick(is_regular=False) == []

    assert host.beat(token) == ["ok"]
    fleet.clock.advance(LEASE - 1)
    assert fleet.tick() == []
    assert fleet.state(token.id) is JobState.RUNNING


def test_nothing_is_judged_when_the_brokers_clock_is_set_forward(fleet):
    host = fleet.host()
    token = host.start(fleet.submit(on_lost="fail"))
    fleet.expire()
    fleet.clock.advance(3600)

    assert fleet.tick(is_regular=False) == []

    assert host.beat(token) == ["ok"]
    assert fleet.state(token.id) is JobState.RUNNING


def test_nothing_is_pruned_at_once_when_the_brokers_clock_is_set_forward(fleet):
    id = reach(fleet, JobState.SUCCEEDED)
    fleet.tick()
    fleet.clock.advance(2 * KEEP)

    assert fleet.tick(is_regular=False) == []
    assert fleet.state(id) is JobState.SUCCEEDED


def test_who_is_still_silent_a_lease_after_a_jump_is_lost(fleet):
    token = fleet.host().start(fleet.submit())
    fleet.tick()
    fleet.clock.advance(3600)
    fleet.tick(is_regular=False)

    fleet.clock.advance(LEASE + 1)

    assert fleet.tick() == [("expired", token.id)]


def test_a_pause_that_no_lease_can_end_in_is_no_jump(fleet):
    token = fleet.host().start(fleet.submit())
    fleet.tick()
    for _ in range(2):
        fleet.clock.advance(TIMES.gap - 1)
        assert fleet.tick(is_regular=False) == []
    fleet.clock.advance(4)

    assert fleet.tick(is_regular=False) == [("expired", token.id)]


def test_a_jump_is_waited_for_again_when_the_clock_jumps_again(fleet):
    fleet.host().start(fleet.submit())
    for _ in range(3):
        fleet.tick()
        fleet.clock.advance(3600)
        assert fleet.tick(is_regular=False) == []


def test_a_lease_does_not_last_an_hour_longer_when_the_clock_is_set_back(fleet):
    token = fleet.host().start(fleet.submit())
    fleet.tick()
    fleet.clock.advance(-3600)
    assert fleet.tick(is_regular=False) == []

    fleet.clock.advance(LEASE - 2)
    assert fleet.tick() == []
    fleet.clock.advance(4)
    assert fleet.tick() == [("expired", token.id)]


def test_a_lost_job_is_judged_in_time_when_the_clock_is_set_back(fleet):
    id = reach(fleet, JobState.LOST)
    fleet.clock.advance(-3600)
    fleet.tick(is_regular=False)

    fleet.clock.advance(LEASE + 1)

    assert fleet.tick() == [("judged", id)]


def test_a_parked_lease_ends_when_it_would_have_when_the_clock_is_set_back(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    host.park(token, duration=900)
    fleet.tick()
    fleet.clock.advance(-3600)
    fleet.tick(is_regular=False)

    fleet.clock.advance(890)
    assert fleet.tick() == []
    fleet.clock.advance(12)
    assert fleet.tick() == [("expired", token.id)]


def test_a_beat_that_came_before_the_step_back_was_noticed_keeps_its_lease(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.tick()
    fleet.clock.advance(-3600)
    host.beat(token)

    assert fleet.tick(is_regular=False) == []

    fleet.clock.advance(LEASE - 2)
    assert fleet.tick() == []


def test_a_retrys_delay_does_not_grow_when_the_clock_is_set_back_but_a_start_time_stays(fleet):
    host = fleet.host()
    retried = host.start(fleet.submit(retries=1))
    host.finish(retried, JobState.SCHEDULED, delay=100)
    timed = fleet.submit(due_at=fleet.now() + 100)
    fleet.tick()
    fleet.clock.advance(-3600)
    fleet.tick(is_regular=False)

    fleet.clock.advance(101)
    assert fleet.tick() == [("due", retried.id)]
    fleet.clock.advance(3600)
    assert fleet.tick() == [("due", timed)]


def test_a_quiet_time_does_not_last_an_hour_longer_when_the_clock_is_set_back(fleet):
    for name in ("pi4", "mini"):
        fleet.host(name).start(fleet.submit())
    restart_broker(fleet)
    fleet.tick()
    fleet.clock.advance(-3600)
    fleet.tick(is_regular=False)

    fleet.clock.advance(LEASE + 1)
    assert fleet.tick() == []  # the storm brake
    fleet.clock.advance(LEASE + 1)
    assert len(fleet.tick()) == 2


def test_a_host_is_not_seen_in_the_future_when_the_clock_is_set_back(fleet, store):
    fleet.host()
    fleet.tick()
    fleet.clock.advance(-3600)

    fleet.tick(is_regular=False)

    [host] = store.hosts.list(online_within=LEASE)
    assert host.seen_at <= fleet.now()


def test_a_run_time_is_never_negative(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.clock.advance(-3600)
    host.finish(token)

    assert fleet.record(token.id).duration == 0


# Callers that only wait: their configuration isn't the fleet's


def test_who_only_waits_lets_time_pass_by_the_times_of_the_workers(fleet):
    token = fleet.host().start(fleet.submit())
    fleet.tick()
    fleet.clock.advance(LEASE + 1)

    assert fleet.tick(None, keep=None) == [("expired", token.id)]

    record = fleet.store.connection.zscore(fleet.key("state", "lost"), token.id)
    assert record == pytest.approx(fleet.now() + TIMES.lost_min, abs=5)


def test_who_only_waits_expires_nothing_before_a_worker_said_how(fleet):
    token = fleet.host().start(fleet.submit())
    due = fleet.submit(due_at=fleet.now() + 30)
    fleet.clock.advance(10 * LEASE)

    assert fleet.tick(None, keep=None) == [("due", due)]
    assert fleet.state(token.id) is JobState.RUNNING


def test_who_only_waits_prunes_nothing(fleet):
    id = reach(fleet, JobState.SUCCEEDED)
    fleet.tick()
    fleet.clock.advance(10 * KEEP)

    assert fleet.tick(None, keep=None) == []
    assert fleet.state(id) is JobState.SUCCEEDED


# The storm brake


def test_when_two_hosts_vanish_at_once_one_lease_length_is_waited_once(fleet):
    tokens = [fleet.host(name).start(fleet.submit()) for name in ("pi4", "mini")]

    assert fleet.expire() == []
    fleet.clock.advance(LEASE - 2)
    assert fleet.tick() == []
    fleet.clock.advance(4)
    assert sorted(fleet.tick()) == sorted(("expired", token.id) for token in tokens)


def test_hosts_that_come_back_under_the_brake_keep_their_jobs(fleet):
    hosts = [fleet.host(name) for name in ("pi4", "mini")]
    tokens = [host.start(fleet.submit()) for host in hosts]
    fleet.expire()

    for host, token in zip(hosts, tokens, strict=True):
        host.beat(token)
    fleet.clock.advance(LEASE - 1)

    assert fleet.tick() == []
    assert fleet.states(*(token.id for token in tokens)) == [JobState.RUNNING] * 2


def test_many_jobs_of_one_host_are_no_storm(fleet):
    host = fleet.host()
    tokens = [host.start(fleet.submit()) for _ in range(5)]

    assert len(fleet.expire()) == len(tokens)


def test_the_brake_is_there_again_for_a_later_storm(fleet):
    hosts = [fleet.host(name) for name in ("pi4", "mini")]
    for _ in range(2):
        for host in hosts:
            host.start(fleet.submit(on_lost="fail"))
        assert fleet.expire() == []
        fleet.clock.advance(LEASE + 1)
        assert len(fleet.tick()) == 2
        fleet.judge()
        fleet.clock.advance(10 * LEASE)


def test_a_job_without_a_record_does_not_stop_the_tick(fleet, store):
    token = fleet.host().start(fleet.submit())
    store.connection.zadd(fleet.key("state", "running"), {"nosuchjob000": 1})

    # A brake first: who held a job that nobody knows can't be told.
    fleet.expire()
    fleet.clock.advance(LEASE + 1)
    fleet.tick()

    assert fleet.state(token.id) is JobState.LOST
    assert store.connection.zscore(fleet.key("state", "running"), "nosuchjob000") is None


# What is due


def test_a_scheduled_job_is_queued_when_it_is_due_and_not_before(fleet):
    id = fleet.submit(due_at=fleet.now() + 60, host="pi4")
    fleet.clock.advance(58)
    assert fleet.tick() == []

    fleet.clock.advance(3)
    assert fleet.tick() == [("due", id)]

    assert [nudge["headers"]["id"] for nudge in fleet.nudges("host.pi4")] == [id]
    assert fleet.record(id).due_at is None
    assert fleet.host("pi4").claim(id)


def test_a_due_job_stands_behind_what_was_queued_before_it(fleet):
    late = fleet.submit(due_at=fleet.now() + 60)
    early = fleet.submit()
    fleet.clock.advance(61)
    fleet.tick()

    host = fleet.host()

    assert [host.claim().id, host.claim().id] == [early, late]


@pytest.mark.parametrize("state", ["scheduled", "lost", "running"])
def test_an_index_entry_that_its_record_denies_is_dropped(fleet, store, state):
    id = fleet.submit()
    store.connection.zadd(fleet.key("state", state), {id: 1, "nosuchjob000": 1})

    for _ in range(2):
        fleet.tick()
        fleet.clock.advance(LEASE + 1)

    assert fleet.state(id) is JobState.QUEUED
    assert store.connection.zcard(fleet.key("state", state)) == 0


def test_one_tick_does_a_bounded_amount(fleet):
    for _ in range(7):
        fleet.submit(due_at=fleet.now() + 60)
    fleet.clock.advance(61)

    assert [len(fleet.tick(limit=3)) for _ in range(4)] == [3, 3, 1, 0]


# Pruning


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_an_ended_job_is_kept_for_its_time_and_then_gone(fleet, store, state):
    id = reach(fleet, state)
    fleet.clock.advance(KEEP - 10)
    assert fleet.tick() == []

    fleet.clock.advance(20)
    assert fleet.tick() == [("pruned", id)]

    assert store.jobs.fetch_many([id]) == []


@pytest.mark.parametrize(
    "state",
    [JobState.WAITING, JobState.QUEUED, JobState.NEEDS_HUMAN],
)
def test_a_job_that_has_not_ended_is_never_pruned(fleet, state):
    id = reach(fleet, state)
    fleet.clock.advance(10 * KEEP)

    fleet.tick()

    assert fleet.state(id) is state


def test_pruning_leaves_nothing_of_a_job(fleet, store):
    pi4, mini = fleet.host("pi4"), fleet.host("mini")
    # What is remembered of the last submits is bounded, and isn't about this job.
    before = {*store.connection.keys("*"), fleet.key("recent").encode()}
    id = fleet.submit(retries=1, name="encode", group="films", unique="film 1")
    store.logs.follow(id, "reply-1")
    lost = fleet.lose(pi4, id)
    pi4.finish(lost)
    token = mini.start(id)
    child = fleet.submit(after=(id,))
    store.logs.append(token, 0, b"output")
    mini.finish(token, JobState.FAILED)
    assert fleet.state(child) is JobState.FAILED

    fleet.clock.advance(KEEP + 1)
    fleet.tick()

    left = {key.decode() for key in store.connection.keys("*")} - {key.decode() for key in before}
    known = ("meta", "nudges", "queue", "stats")
    assert not {key for key in left if not key.startswith(tuple(map(store.keys, known)))}
    assert store.connection.zcard(fleet.key("by_host", "pi4")) == 0
    assert store.connection.zcard(fleet.key("by_host", "mini")) == 0


def test_of_too_many_ended_jobs_those_that_ended_first_go(fleet):
    host = fleet.host()
    ids = []
    for state in [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED] * 2:
        ids.append(host.run(fleet.submit(), state).id)
        fleet.clock.advance(1)

    done = fleet.tick(keep=Keep(age=KEEP, jobs=2))

    assert done == [("pruned", id) for id in ids[:4]]
    assert fleet.tick(keep=Keep(age=KEEP, jobs=2)) == []


def test_jobs_that_have_not_ended_do_not_count_as_kept(fleet):
    ended = reach(fleet, JobState.SUCCEEDED)
    for state in (JobState.WAITING, JobState.SCHEDULED, JobState.QUEUED):
        reach(fleet, state)

    assert fleet.tick(keep=Keep(age=KEEP, jobs=1)) == []
    assert fleet.state(ended) is JobState.SUCCEEDED


def test_one_tick_prunes_a_bounded_number(fleet):
    host = fleet.host()
    for _ in range(5):
        host.run(fleet.submit())

    pruned = [len(fleet.tick(keep=Keep(age=KEEP, jobs=1), limit=2)) for _ in range(3)]

    assert pruned == [2, 2, 0]


def test_pruning_goes_by_the_end_of_the_last_attempt(fleet):
    host = fleet.host()
    id = fleet.submit()
    host.run(id)
    fleet.clock.advance(KEEP - DAY)
    fleet.retry(id)
    host.run(id)

    fleet.clock.advance(2 * DAY)

    assert fleet.tick() == []
