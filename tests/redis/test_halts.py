"""Halts: after so many failures, successes or ends of their kin, jobs are cancelled with them."""

import pytest

from relayq.errors import NoSuchJob
from relayq.model.halts import Halt
from relayq.model.jobs import JobState
from tests.redis.fleet import spec

# The scripts know no difference between versions here: tests/redis/test_moves.py meets them all.
pytestmark = pytest.mark.parametrize("connection", ["redis7", "fakeredis"], indirect=True)

QUEUED, RUNNING, CANCELLED = JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED
SUCCEEDED, FAILED = JobState.SUCCEEDED, JobState.FAILED


def submit(fleet, halt, *specs):
    fleet.dispatcher.submit(specs, halts=[halt])
    return [one.id for one in specs]


def member(**options):
    return spec(halts=("films",), **options)


def test_the_first_failure_cancels_the_others_and_asks_those_that_run_to_end(fleet):
    host = fleet.host()
    first, second, third = submit(fleet, Halt("films"), member(), member(), member())
    failing, running = host.start(first), host.start(second)

    host.finish(failing, FAILED)

    assert fleet.states(second, third) == [RUNNING, CANCELLED]
    assert host.beat(running) == ["cancel"]
    assert host.finish(running, SUCCEEDED) == CANCELLED
    for id in (second, third):
        record = fleet.record(id)
        assert (record.reason, record.halted) == ("halted", "films")


def test_a_halt_that_is_soon_lets_what_runs_come_to_its_end(fleet):
    host = fleet.host()
    first, second, third = submit(fleet, Halt("films", way="soon"), member(), member(), member())
    failing, running = host.start(first), host.start(second)

    host.finish(failing, FAILED)

    assert host.beat(running) == ["ok"]
    assert host.finish(running) == SUCCEEDED
    assert fleet.state(third) is CANCELLED


def test_as_many_are_waited_for_as_the_limit_says(fleet):
    host = fleet.host()
    ids = submit(fleet, Halt("films", limit=2), *(member() for _ in range(4)))

    host.run(ids[0], FAILED)
    assert fleet.state(ids[3]) is QUEUED
    host.run(ids[1])
    host.run(ids[2], FAILED)

    assert fleet.state(ids[3]) is CANCELLED


@pytest.mark.parametrize(
    ("counted", "end", "halts"),
    [
        ("success", SUCCEEDED, True),
        ("success", FAILED, False),
        ("done", SUCCEEDED, True),
        ("done", FAILED, True),
        ("fail", SUCCEEDED, False),
        ("done", JobState.NEEDS_HUMAN, False),
    ],
)
def test_what_is_counted_is_failures_successes_or_both(fleet, counted, end, halts):
    one, other = submit(fleet, Halt("films", counted=counted), member(), member())

    fleet.host().run(one, end)

    assert (fleet.state(other) is CANCELLED) is halts


def test_what_a_failure_took_along_and_what_was_skipped_is_not_counted(fleet):
    host = fleet.host()
    one, skipped = spec(), spec()
    below, after_skipped = member(after=(one.id,)), member(after=(skipped.id,))
    *_, other = submit(
        fleet, Halt("films", counted="done"), one, skipped, below, after_skipped, member()
    )

    host.run(one.id, FAILED)
    token = host.start(skipped.id)
    host.finish(token, SUCCEEDED, reason="skipped")

    assert [fleet.record(one.id).reason for one in (below, after_skipped)] == [
        "upstream",
        "skipped",
    ]
    assert fleet.state(other) is QUEUED


def test_the_failure_of_a_lenient_job_counts_as_a_success(fleet):
    one, other = submit(fleet, Halt("films"), member(is_lenient=True), member())
    fleet.host().run(one, FAILED)
    assert fleet.state(other) is QUEUED

    [winner, loser] = submit(
        fleet,
        Halt("race", counted="success"),
        spec(halts=("race",), is_lenient=True, priority=10),
        spec(halts=("race",)),
    )
    fleet.host().run(winner, FAILED)
    assert fleet.state(loser) is CANCELLED


def test_jobs_that_run_after_a_failure_or_always_are_spared(fleet):
    one = member()
    tidy = member(after=(one.id,), when="always")
    tell = member(after=(one.id,), when="failure")
    submit(fleet, Halt("films"), one, tidy, tell)

    fleet.host().run(one.id, FAILED)

    assert fleet.states(tidy.id, tell.id) == [QUEUED, QUEUED]


def test_who_joins_when_it_is_over_is_cancelled_at_once(fleet):
    [one] = submit(fleet, Halt("films"), member())
    fleet.host().run(one, FAILED)

    late, tidy = member(), member(when="always")
    placed = fleet.dispatcher.submit([late, tidy], halts=[Halt("films")])

    assert [one.state for one in placed] == [CANCELLED, QUEUED]
    assert fleet.record(late.id).halted == "films"
    assert late.id in fleet.pending_end(late.id)


def test_a_person_who_cancels_one_halts_nothing(fleet):
    one, other = submit(fleet, Halt("films", counted="done"), member(), member())

    fleet.cancel(one)

    assert fleet.state(other) is QUEUED


def test_a_retry_is_counted_anew(fleet):
    host = fleet.host()
    one, other = submit(fleet, Halt("films", limit=2), member(), member())
    host.run(one, FAILED)
    fleet.retry(one)
    fleet.cancel(other)
    [third] = fleet.submit_all([member()])

    host.run(one, FAILED)

    assert fleet.state(third) is QUEUED


def test_a_halt_goes_with_the_last_of_its_jobs(fleet, store):
    one, other = submit(fleet, Halt("films"), member(), member())
    host = fleet.host()
    host.run(one, FAILED)
    keys = [fleet.key("halt", "films"), fleet.key("halted", "films")]
    assert all(store.connection.ttl(key) > 0 for key in keys)

    store.jobs.forget([one])
    assert store.connection.exists(*keys) == 2
    store.jobs.forget([other])

    assert store.connection.exists(*keys) == 0


def test_a_submit_that_is_refused_leaves_no_halt(fleet, store):
    missing = member(after=("nosuchjob000",))

    with pytest.raises(NoSuchJob):
        fleet.dispatcher.submit([missing], halts=[Halt("films")])

    assert store.connection.keys("*halt*") == []


def test_a_repeat_of_a_submit_counts_nothing_from_the_start(fleet):
    specs = [member(), member(), member()]
    submit(fleet, Halt("films", limit=2), *specs)
    fleet.host().run(specs[0].id, FAILED)

    submit(fleet, Halt("films", limit=2), *specs)
    fleet.host().run(specs[1].id, FAILED)

    assert fleet.state(specs[2].id) is CANCELLED
