"""The client on a store: what `job` adds to it."""

import pytest

from relayq.client import Relay
from relayq.errors import (
    Conflict,
    NoSuchHost,
    NoSuchJob,
    RelayqError,
    WaitTimeout,
)
from relayq.gathering import first_ended
from relayq.model.jobs import JobState
from relayq.model.output import STDOUT, frame
from relayq.session import Session
from tests.redis.scenes import reach


@pytest.fixture
def job(fleet, store, home):
    """What a program calls, on the test's own store."""
    relay = Relay(home=home)
    relay._session = Session(store, fleet.signer, print)
    return relay.job


def test_a_job_is_submitted_with_all_that_was_said_of_it(fleet, job):
    parent = job.run("true")

    result = job.run(
        "true",
        name="encode",
        labels=["media", "media"],
        meta={"film": "Up"},
        group="films",
        unique="film 1",
        note="for Bob",
        after=[parent],
    )

    said = result.record.spec
    assert (said.name, said.labels, said.meta) == ("encode", ("media",), {"film": "Up"})
    assert (said.group, said.unique, said.note) == ("films", "film 1", "for Bob")
    assert said.after == (parent.id,)
    assert result.is_new


def test_a_submit_with_a_taken_key_returns_the_job_that_has_it(job):
    first = job.run("true", unique="film 1")

    second = job.run("true", unique="film 1", follow=True)
    third, fourth = job.submit_many(
        [{"cmd": "true", "unique": "film 1"}, {"cmd": "true", "unique": "film 2"}]
    )

    assert (second.id, second.is_new) == (first.id, False)
    assert (third.id, third.is_new) == (first.id, False)
    assert fourth.is_new
    assert len(job.list()) == 2


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_the_jobs_of_a_host_are_found_among_many_others(fleet, job, monkeypatch, limit):
    monkeypatch.setattr("relayq.store.jobs._SCANNED", 2)
    fleet.host("pi4")
    first = job.run("true", host="pi4")
    job.submit_many(["true"] * 5)
    waiting = job.run("true", host="pi4", after=[first])
    scheduled = job.run("true", host="pi4", delay=60)
    job.submit_many([{"cmd": "true", "delay": 60}] * 5)

    found = [record.id for record in job.list(host="pi4", limit=limit)]

    assert found == [scheduled.id, waiting.id, first.id][:limit]


@pytest.mark.parametrize("due", [{"delay": 60}, {"due_at": 4e9}])
def test_a_job_may_be_due_later(job, due):
    assert job.run("true", **due).state == "scheduled"
    assert job.submit_many([{"cmd": "true", **due}])[0].state == "scheduled"


def test_a_job_that_was_due_in_the_past_is_queued_at_once(job):
    result = job.run("true", due_at=1.0)

    assert result.state == "queued"
    assert result.record.due_at is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"due_at": 4e9, "delay": 5},
        {"name": "last"},
        {"group": "a b"},
        {"labels": "a"},
        {"meta": {"a": 1}},
        {"unique": ""},
        {"priority": "soon"},
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_queued(job, wrong):
    with pytest.raises(RelayqError):
        job.run("true", **wrong)

    assert job.list() == []


def test_jobs_are_selected(fleet, job):
    films = job.submit_many([{"cmd": "true", "group": "films", "name": str(n)} for n in range(3)])
    other = job.run("true")
    ids = [film.id for film in films]

    def selected(*selectors, **options):
        return [result.id for result in job.select(selectors, **options)]

    assert selected("last", "films[1]") == [other.id, ids[0]]
    assert selected("@films", filters={"name": "2"}) == [ids[2]]
    assert set(selected(filters={"group": "f*"})) == set(ids)
    assert set(selected(everything=True)) == {*ids, other.id}
    assert set(selected(everything=True, filters={"name": "*"})) == set(ids)
    assert selected() == []
    with pytest.raises(NoSuchJob):
        selected("nosuchjob")
    with pytest.raises(RelayqError, match="no such filter"):
        selected(filters={"colour": "red"})


def test_a_job_is_moved(fleet, job):
    fleet.host("pi4")
    result = job.run("true")
    assert result.record.queue == "any"

    assert result.move("pi4", priority="high") is result

    assert (result.record.queue, result.record.priority) == ("host.pi4", 8)
    with pytest.raises(NoSuchHost):
        result.move("mars")
    with pytest.raises(RelayqError, match="priority"):
        result.move(priority=11)
    result.cancel()
    with pytest.raises(Conflict, match="is cancelled"):
        result.move("any")


def test_an_ended_job_is_forgotten(job):
    result = job.run("true")
    with pytest.raises(Conflict, match="is queued; only an ended job") as caught:
        result.forget()
    assert caught.value.hint == f"relayq cancel {result.id}"

    result.cancel()
    result.forget()

    with pytest.raises(NoSuchJob):
        result.forget()
    assert job.list() == []


def test_jobs_are_pruned(fleet, job):
    old = reach(fleet, JobState.SUCCEEDED)
    fleet.clock.advance(100)
    young = reach(fleet, JobState.FAILED)

    assert job.prune(keep=2) == 0
    assert job.prune(50) == 1
    assert [record.id for record in job.list()] == [young]
    assert job.prune(0, states=["cancelled"]) == 0
    assert old != young


@pytest.mark.parametrize(
    "wrong", [{}, {"older_than": -1}, {"keep": -1}, {"older_than": 1, "states": ["queued"]}]
)
def test_a_prune_that_says_nothing_sensible_is_refused(job, wrong):
    with pytest.raises(RelayqError):
        job.prune(**wrong)


def test_a_plan_is_what_a_submit_would_queue(fleet, job):
    fleet.host("pi4")
    asked = {"cmd": "true", "cwd": "/tmp", "host": "pi4", "name": "encode", "priority": "high"}

    plan = job.plan("run_command", **asked)

    assert (plan.queue, plan.name, plan.priority) == ("host.pi4", "encode", 8)
    assert plan.payload == {"cmd": "true", "cwd": "/tmp"}
    assert job.list() == []
    with pytest.raises(NoSuchHost):
        job.plan("run_command", cmd="true", host="mars")
    assert job.plan("run_command", cmd="true", host="mars", wait_for_host=True).host == "mars"
    with pytest.raises(RelayqError):
        job.plan("run_command", cmd="true", colour="red")


def test_a_plan_without_a_host_asks_no_broker(home):
    with Relay(home=home, url="redis://127.0.0.1:1") as relay:
        assert relay.job.plan("run_command", cmd="true").queue == "any"


def test_the_first_of_several_that_ends_is_waited_for(fleet, job):
    slow, quick, late = (job.run("true") for _ in range(3))
    host = fleet.host()
    with pytest.raises(WaitTimeout):
        first_ended([slow, quick], timeout=0.01)

    tokens = [host.start(one.id) for one in (slow, quick)]
    host.finish(tokens[1], JobState.FAILED)
    host.finish(tokens[0])

    assert first_ended([slow, quick, late]) is quick
    assert first_ended([late, slow]) is slow
    late.cancel()


def test_a_retry_that_is_followed_shows_what_runs_then_and_nothing_older(fleet, job):
    result = job.run("true")
    host = fleet.host()
    host.finish(host.start(result.id), JobState.FAILED, output=frame(STDOUT, 0.0, b"old"))
    assert result.stdout == "old"

    result.retry(follow=True)
    assert fleet.store.logs.followers(result.id) == [result.reply]
    host.finish(host.start(result.id), output=frame(STDOUT, 0.0, b"new"))

    assert [one.data for one in result.logs(follow=True)] == [b"new"]
    assert result.successful()


def test_a_retry_that_is_followed_and_cancelled_has_no_output(fleet, job):
    result = job.run("true")
    host = fleet.host()
    host.finish(host.start(result.id), JobState.FAILED, output=frame(STDOUT, 0.0, b"old"))

    result.retry(follow=True).cancel()

    assert list(result.logs(follow=True)) == []


def test_a_retry_that_is_refused_leaves_no_follower(fleet, job):
    result = job.run("true")

    with pytest.raises(Conflict):
        result.retry(follow=True)

    assert fleet.store.logs.followers(result.id) == []
    result.cancel()
