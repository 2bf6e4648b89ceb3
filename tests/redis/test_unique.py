"""unique: of the jobs with one key only one at a time isn't ended."""

import threading

import pytest

from relayq.dispatch import Placed
from relayq.errors import Conflict
from relayq.model.jobs import FINAL, JobState
from tests.redis.fleet import spec
from tests.redis.scenes import reach


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL))
def test_while_a_job_is_not_ended_a_submit_with_its_key_finds_it(fleet, store, state):
    id = reach(fleet, state, unique="film 1", on_lost="ask")
    before = store.connection.dbsize()

    placed = fleet.dispatcher.submit([spec(unique="film 1")])

    assert placed == [Placed(id, state, is_new=False)]
    assert store.connection.dbsize() == before


@pytest.mark.parametrize("state", sorted(FINAL))
def test_an_ended_job_lets_its_key_go(fleet, state):
    reach(fleet, state, unique="film 1")
    one = spec(unique="film 1")

    placed = fleet.dispatcher.submit([one])

    assert placed == [Placed(one.id, JobState.QUEUED)]


def test_another_key_or_none_is_another_job(fleet):
    fleet.submit(unique="film 1")

    placed = fleet.dispatcher.submit([spec(unique="film 2"), spec(), spec()])

    assert all(one.is_new for one in placed)


def test_in_one_batch_the_first_of_a_key_is_the_one(fleet):
    first, second, third = spec(unique="a"), spec(unique="a"), spec(unique="b")

    placed = fleet.dispatcher.submit([first, second, third])

    assert [one.id for one in placed] == [first.id, first.id, third.id]
    assert [one.is_new for one in placed] == [True, False, True]
    assert len(fleet.nudges()) == 2


def test_a_repeated_submit_is_still_that_job(fleet):
    one = spec(unique="a")
    fleet.dispatcher.submit([one])

    assert fleet.dispatcher.submit([one]) == [Placed(one.id, JobState.QUEUED)]


def test_of_many_who_submit_at_once_one_makes_the_job(fleet):
    placed = []
    threads = [
        threading.Thread(target=lambda: placed.extend(fleet.dispatcher.submit([spec(unique="a")])))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(placed) == 8
    assert len({one.id for one in placed}) == 1
    assert sum(one.is_new for one in placed) == 1


@pytest.mark.parametrize("end", ["a verdict", "a cancel", "a parent", "a person"])
def test_every_end_lets_the_key_go(fleet, end):
    parent = fleet.submit(host="elsewhere")
    if end == "a parent":
        fleet.submit(unique="a", after=(parent,))
        fleet.cancel(parent)
    elif end == "a person":
        fleet.resolve(reach(fleet, JobState.NEEDS_HUMAN, unique="a"), JobState.SUCCEEDED)
    else:
        id = reach(fleet, JobState.RUNNING, unique="a", on_lost="fail")
        if end == "a cancel":
            fleet.cancel(id)
        fleet.expire()
        fleet.judge()

    [placed] = fleet.dispatcher.submit([spec(unique="a")])

    assert placed.is_new


def test_a_job_that_fails_as_it_is_submitted_takes_no_key(fleet):
    failed = reach(fleet, JobState.FAILED)
    child = fleet.submit(unique="a", after=(failed,))
    assert fleet.state(child) is JobState.FAILED

    [placed] = fleet.dispatcher.submit([spec(unique="a")])

    assert placed.is_new


@pytest.mark.parametrize("wrong", ["no record", "an ended job", "another job's key"])
def test_a_key_that_lies_is_free(fleet, store, wrong):
    id = {
        "no record": lambda: "nosuchjob000",
        "an ended job": lambda: reach(fleet, JobState.FAILED, unique="a"),
        "another job's key": lambda: fleet.submit(unique="b"),
    }[wrong]()
    store.connection.set(fleet.key("unique", "a"), id)

    [placed] = fleet.dispatcher.submit([spec(unique="a")])

    assert placed.is_new


def test_a_retry_takes_the_key_again(fleet):
    id = reach(fleet, JobState.FAILED, unique="a")

    fleet.retry(id)

    assert fleet.dispatcher.submit([spec(unique="a")]) == [
        Placed(id, JobState.QUEUED, is_new=False)
    ]


def test_a_retry_is_refused_while_another_job_has_the_key(fleet):
    id = reach(fleet, JobState.FAILED, unique="a")
    other = fleet.submit(unique="a")

    with pytest.raises(Conflict, match=f"while {other} has the same unique key"):
        fleet.dispatcher.retry(id)

    assert fleet.state(id) is JobState.FAILED
    fleet.cancel(other)
    fleet.dispatcher.retry(id)
    assert fleet.state(id) is JobState.QUEUED


def test_forgetting_an_older_job_leaves_the_key_with_the_newer(fleet, store):
    older = reach(fleet, JobState.FAILED, unique="a")
    newer = fleet.submit(unique="a")

    assert store.jobs.forget([older]) == ["forgotten"]

    assert fleet.dispatcher.submit([spec(unique="a")])[0].id == newer
