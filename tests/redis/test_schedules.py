"""Schedules: what is stored of them, whose turn it is, and that nothing starts after an answer."""

from __future__ import annotations

from typing import Any

import pytest

from relayq.errors import Conflict, NoSuchSchedule
from relayq.model.jobs import JobState, new_id
from relayq.model.schedules import Condition
from relayq.recurring import sign
from relayq.signing import Signer
from tests.redis.fleet import Fleet, spec
from tests.redis.recurrences import Recurrences, Slow, at

DAY = 86_400.0


@pytest.fixture
def recurs(fleet: Fleet) -> Recurrences:
    return Recurrences(fleet)


def test_a_job_is_queued_when_it_is_time_and_says_which_schedule_it_is_of(recurs, fleet):
    recurs.set_clock("2026-11-21T02:59:50")
    recurs.add("daily at 3:00", job=spec(meta={"colour": "red"}, name="backup"))
    assert recurs.tick() == []
    fleet.clock.advance(10)

    [taken] = recurs.tick()

    [job] = recurs.jobs()
    assert [one.id for one in taken.jobs] == [job.id]
    assert taken.wait == pytest.approx(DAY, abs=1)
    assert job.state is JobState.QUEUED
    assert job.spec.name == "backup"
    assert job.spec.group == "schedule-nightly"
    assert job.spec.meta == {
        "colour": "red",
        "schedule": "nightly",
        "instant": "2026-11-21T03:00:00Z",
    }
    assert job.spec.payload["env"]["RELAYQ_INSTANT"] == "2026-11-21T03:00:00Z"
    assert fleet.signer.check_spec(fleet.store.jobs.signed_spec(job.id), id=job.id)
    assert recurs.record().next_at == at("2026-11-22T03:00")
    fleet.host().run(job.id)
    assert recurs.tick() == []


def test_who_ticks_hears_when_the_next_schedule_comes(recurs, fleet):
    recurs.set_clock("2026-11-21T02:59:00")
    recurs.add("daily at 3:00")
    fleet.clock.advance(20)

    [(word, seconds)] = fleet.tick()

    assert word == "comes"
    assert float(seconds) == pytest.approx(40, abs=1)


def test_of_two_workers_that_see_the_same_instant_one_submits(recurs, fleet):
    recurs.set_clock("2026-11-21T02:59:50")
    recurs.add("daily at 3:00")
    fleet.clock.advance(11)
    first, second = (
        Slow(fleet.store, fleet.signer, recurs.config, who=who).look() for who in ("pi4", "mini")
    )

    assert (second.goes_on(), first.goes_on()) == ("done", "changed")

    assert len(recurs.jobs()) == 1


def test_a_worker_that_dies_before_it_submits_costs_nothing(recurs, fleet):
    recurs.set_clock("2026-11-21T02:59:50")
    recurs.add("daily at 3:00")
    fleet.clock.advance(11)
    Slow(fleet.store, fleet.signer, recurs.config, who="pi4").look()

    recurs.tick("mini")

    assert recurs.runs() == ["2026-11-21T03:00:00Z"]


@pytest.mark.parametrize("act", ["pause", "rm", "replace", "add it anew"])
def test_nothing_starts_after_the_answer(recurs, fleet, act):
    recurs.set_clock("2026-11-21T02:59:50")
    recurs.add("daily at 3:00")
    fleet.clock.advance(11)
    slow = Slow(fleet.store, fleet.signer, recurs.config, who="pi4").look()

    if act == "pause":
        assert recurs.pause() == "paused"
    elif act == "rm":
        fleet.store.schedules.drop("nightly", who="ann@mac")
    elif act == "replace":
        recurs.add("daily at 4:00", replace=True)
    else:
        fleet.store.schedules.drop("nightly", who="ann@mac")
        recurs.add("daily at 4:00")

    assert slow.goes_on() == ("gone" if act == "rm" else "changed")
    assert fleet.store.jobs.list() == []


def test_a_worker_that_heard_of_a_turn_before_the_pause_takes_it_no_more(recurs, fleet):
    recurs.set_clock("2026-11-21T02:59:50")
    recurs.add("daily at 3:00")
    fleet.clock.advance(11)
    assert ("recurs", "nightly") in fleet.tick()
    recurs.pause()

    assert recurs.turns().take("nightly").jobs == ()
    assert fleet.store.jobs.list() == []


def test_what_came_while_it_was_paused_is_neither_made_up_for_nor_missed(recurs):
    recurs.set_clock("2026-11-21T12:30")
    schedule = recurs.add("0 * * * *", catch_up="all")
    assert recurs.pause() == "paused"
    assert recurs.pause() == "already"
    recurs.set_clock("2026-11-22T12:30")
    assert recurs.tick() == []
    assert recurs.record().standing is Condition.PAUSED

    assert recurs.resume(schedule) == "resumed"
    assert recurs.resume(schedule) == "already"
    recurs.set_clock("2026-11-22T13:30")
    recurs.tick()

    assert recurs.runs() == ["2026-11-22T13:00:00Z"]
    assert recurs.record().missed == 0


def test_a_schedule_that_is_gone_leaves_its_jobs_and_nothing_else(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *")
    recurs.set_clock("2026-11-21T13:30")
    recurs.tick()

    fleet.store.schedules.drop("nightly", who="ann@mac")

    assert fleet.store.schedules.list() == []
    assert len(recurs.jobs()) == 1
    for act in (recurs.pause, recurs.record):
        with pytest.raises(NoSuchSchedule, match="no such schedule: nightly"):
            act()


def test_nothing_comes_after_its_end(recurs):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *", until=at("2026-11-21T14:00"), catch_up="all", overlap="queue")
    recurs.set_clock("2026-11-22T12:30")

    recurs.tick()

    assert recurs.runs() == ["2026-11-21T13:00:00Z", "2026-11-21T14:00:00Z"]
    assert recurs.record().standing is Condition.ENDED
    assert recurs.tick() == []


# While the run before goes on


def hourly(recurs: Recurrences, fleet: Fleet, overlap: str) -> None:
    """Have the first run of an hourly schedule run, and the second be due."""
    recurs.set_clock("2026-11-21T12:59:30")
    recurs.add("0 * * * *", overlap=overlap)
    fleet.clock.advance(31)
    recurs.tick()
    host = fleet.host()
    token = host.start()
    fleet.clock.advance(3600)
    host.beat(token)
    recurs.tick()


def test_an_instant_is_left_out_and_counted_while_the_run_before_goes_on(recurs, fleet):
    hourly(recurs, fleet, "skip")

    assert recurs.runs() == ["2026-11-21T13:00:00Z"]
    assert recurs.record().left_out == 1
    events = [event for event in fleet.store.events.read() if event.schedule == "nightly"]
    assert [event.what for event in events] == ["added", "left_out"]

    fleet.cancel(recurs.jobs()[0].id)
    fleet.expire()
    fleet.judge()
    fleet.clock.advance(3600)
    recurs.tick()
    assert recurs.runs() == ["2026-11-21T13:00:00Z", "2026-11-21T15:00:00Z"]


def test_a_run_that_is_queued_waits_for_the_end_of_the_one_before(recurs, fleet):
    hourly(recurs, fleet, "queue")
    fleet.clock.advance(3600)
    recurs.tick()
    first, second, third = recurs.jobs()
    assert (second.state, third.state) == (JobState.WAITING, JobState.WAITING)

    fleet.cancel(first.id)
    fleet.expire()
    fleet.judge()

    assert fleet.states(first.id, second.id, third.id) == [
        JobState.CANCELLED,
        JobState.QUEUED,
        JobState.WAITING,
    ]


def test_a_turn_is_decided_anew_when_a_run_that_is_waited_for_was_forgotten(recurs, fleet):
    recurs.set_clock("2026-11-21T12:59:30")
    recurs.add("0 * * * *", overlap="queue")
    fleet.clock.advance(31)
    recurs.tick()
    fleet.clock.advance(3600)
    slow = Slow(fleet.store, fleet.signer, recurs.config, who="pi4").look()
    [first] = recurs.jobs()
    fleet.host().run(first.id)
    fleet.store.jobs.forget([first.id])

    assert slow.goes_on() == "changed"
    recurs.tick("mini")

    [second] = recurs.jobs()
    assert second.state is JobState.QUEUED


def test_a_run_that_replaces_cancels_and_begins_after_that(recurs, fleet):
    hourly(recurs, fleet, "replace")

    first, second = recurs.jobs()
    assert first.cancel_at is not None
    assert second.state is JobState.WAITING
    fleet.expire()
    fleet.judge()
    assert fleet.states(first.id, second.id) == [JobState.CANCELLED, JobState.QUEUED]


def test_runs_that_may_overlap_do(recurs, fleet):
    hourly(recurs, fleet, "allow")

    assert [job.state for job in recurs.jobs()] == [JobState.RUNNING, JobState.QUEUED]


def workflow() -> dict[str, Any]:
    """A workflow of two steps, as a schedule is asked for it."""
    flow, first, second = new_id(), new_id(), new_id()
    own = {"group": f"flow-{flow}", "flow": flow, "halts": (flow,)}
    steps = {"b": {"needs": [], "jobs": [first]}, "a": {"needs": ["b"], "jobs": [second]}}
    kept = {"id": flow, "name": "build", "graph": {"steps": steps}, "halts": [[flow, 1]]}
    jobs = [spec(id=first, step="b", **own), spec(id=second, step="a", after=(first,), **own)]
    return {"jobs": jobs, "flow": kept}


def test_a_workflow_recurs_and_each_run_is_one_of_its_own(recurs, fleet):
    recurs.set_clock("2026-11-21T12:59:30")
    recurs.add("0 * * * *", overlap="skip", **workflow())
    fleet.clock.advance(31)
    recurs.tick()
    host = fleet.host()

    [run] = fleet.store.flows.list()
    first, second = fleet.store.flows.members(run.id)
    assert (run.name, list(run.graph["steps"])) == ("build", ["b", "a"])
    assert run.graph["steps"]["a"]["jobs"] == [second]
    assert recurs.record().recent == (run.id,)
    host.run(first)
    fleet.clock.advance(3600)
    recurs.tick()
    assert recurs.record().left_out == 1
    host.run(second)
    fleet.clock.advance(3600)
    recurs.tick()

    assert len(fleet.store.flows.list()) == 2
    assert recurs.record().runs == 2


def test_a_run_of_a_workflow_that_is_replaced_is_cancelled_whole(recurs, fleet):
    recurs.set_clock("2026-11-21T12:59:30")
    recurs.add("0 * * * *", overlap="replace", **workflow())
    fleet.clock.advance(31)
    recurs.tick()
    host = fleet.host()
    token = host.start()
    fleet.clock.advance(3600)
    host.beat(token)
    recurs.tick()

    new, old = fleet.store.flows.list()
    assert old.cancelled_at is not None
    assert [fleet.state(id) for id in fleet.store.flows.members(old.id)] == [
        JobState.RUNNING,
        JobState.CANCELLED,
    ]
    first, second = fleet.store.flows.members(new.id)
    assert fleet.states(first, second) == [JobState.WAITING, JobState.WAITING]
    host.finish(token, JobState.CANCELLED, reason="user")
    assert fleet.states(first, second) == [JobState.QUEUED, JobState.WAITING]


# By hand


def test_a_person_has_it_run_now_and_what_comes_next_stays(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *", overlap="skip")
    before = recurs.record().next_at

    [job] = recurs.turns("ann@mac").run("nightly").jobs

    assert fleet.state(job.id) is JobState.QUEUED
    assert recurs.record().next_at == before
    with pytest.raises(Conflict, match=f"nightly still runs: {job.id}"):
        recurs.turns().run("nightly")
    assert recurs.turns().run("nightly", force=True)
    assert recurs.record().runs == 2


def test_a_paused_schedule_runs_by_hand_and_stays_paused(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *")
    recurs.pause()

    assert recurs.turns().run("nightly")

    fleet.clock.advance(DAY)
    assert recurs.tick() == []
    assert recurs.record().standing is Condition.PAUSED


# What isn't what somebody signed


@pytest.mark.parametrize(
    ("told", "instead"), [(b'"UTC"', b'"Mars"'), (b"run_command", b'", "x'), (b'"jobs":', b'"j":')]
)
def test_what_cannot_be_read_does_not_hide_the_others(recurs, fleet, told, instead):
    key = fleet.key("schedule", "nightly")
    recurs.add("daily")
    recurs.add("daily", name="other")
    signed = fleet.store.connection.hget(key, "signed")
    assert told in signed
    fleet.store.connection.hset(key, "signed", signed.replace(told, instead))

    found = {one.name: one.schedule for one in fleet.store.schedules.list()}

    assert found["nightly"] is None
    assert found["other"] is not None


def tampered(recurs: Recurrences, fleet: Fleet, how: str) -> None:
    key = fleet.key("schedule", "nightly")
    signed = fleet.store.connection.hget(key, "signed")
    if how == "another command":
        fleet.store.connection.hset(key, "signed", signed.replace(b"echo hi", b"echo ha"))
    elif how == "another schedule":
        recurs.add("0 * * * *", name="weekly")
        other = fleet.store.connection.hget(fleet.key("schedule", "weekly"), "signed")
        fleet.store.schedules.drop("weekly", who="")
        fleet.store.connection.hset(key, "signed", other)
    else:
        fleet.store.connection.hset(key, "next", at("2026-11-21T12:31"))
        fleet.store.connection.zadd(fleet.key("schedules"), {"nightly": at("2026-11-21T12:31")})


@pytest.mark.parametrize("how", ["another command", "another schedule", "another instant"])
def test_a_schedule_that_nobody_signed_so_is_refused_and_says_so(recurs, fleet, how):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *")
    tampered(recurs, fleet, how)
    fleet.clock.advance(7200)

    recurs.tick()

    assert recurs.jobs() == []
    record = recurs.record()
    assert record.standing is Condition.REFUSED
    assert record.refused
    assert recurs.tick() == []
    assert fleet.store.events.read()[-1].what == "refused"


def test_a_worker_with_another_key_submits_nothing_and_spoils_nothing(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30")
    recurs.add("0 * * * *")
    fleet.clock.advance(3600)
    stranger = Recurrences(Fleet(fleet.store, fleet.clock, Signer(b"x" * 32)))

    with pytest.raises(Exception, match="another|key"):
        stranger.tick()

    recurs.tick()
    assert len(recurs.jobs()) == 1


def test_one_that_a_worker_cannot_read_is_left_to_others(recurs, fleet):
    recurs.set_clock("2026-11-21T12:30")
    schedule = recurs.add("0 * * * *")
    newer = schedule.as_dict() | {"v": 2}

    class Newer:
        name = "nightly"

        def as_dict(self):
            return newer

    fleet.store.connection.hset(
        fleet.key("schedule", "nightly"), "signed", sign(fleet.signer, Newer())
    )
    fleet.clock.advance(3600)

    recurs.tick()

    assert recurs.record().standing is Condition.ACTIVE
    assert "pi4: schedule version 2" in recurs.record().trouble
