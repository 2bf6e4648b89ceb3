"""What a turn of a schedule comes to, which schedules make sense, and how they are typed."""

from __future__ import annotations

import json
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from relayq import Relay, clock
from relayq.cli.schedule import schedule as group
from relayq.errors import BadSignature, RelayqError
from relayq.model.jobs import JobState, Spec, new_id
from relayq.model.schedules import (
    MOST_WAITING,
    Schedule,
    ScheduleRecord,
    by_hand,
    check_schedule,
    check_schedule_name,
    run_of,
    step,
)

NOON = 1_795_262_400.0
HOUR = 3600.0


def made(when: str = "0 * * * *", **fields) -> Schedule:
    job = Spec(new_id(), "run_command", {"cmd": "true", "env": {"A": "b"}}).as_dict()
    return Schedule("nightly", "uid", when, (job,), since=NOON, **fields)


def record(next_at: float = NOON + HOUR, **fields) -> ScheduleRecord:
    return ScheduleRecord("nightly", b"", "uid 1", next_at=next_at, **fields)


def taken(schedule: Schedule, now: float, *going: JobState, **fields):
    ids = tuple(f"job{n}" for n, _ in enumerate(going))
    pairs = zip(ids, going, strict=True)
    unended = {id: [] if state.is_final else [id] for id, state in pairs}
    return step(schedule, record(going=ids, **fields), unended, now)


def test_a_turn_before_its_time_does_nothing():
    done = taken(made(), NOON + 60)

    assert (done.jobs, done.next_at, done.missed, done.left_out) == ((), NOON + HOUR, 0, 0)


def test_after_the_clock_was_set_back_nothing_that_was_dealt_with_comes_again():
    seen = {"next_at": NOON + 9 * HOUR, "seen_at": NOON + HOUR}

    assert step(made(), record(**seen), {}, NOON - 60).next_at == NOON + 2 * HOUR
    # By a clock that was days ahead.
    assert step(made(), record(**seen), {}, NOON - 86_400.0).next_at == NOON - 23 * HOUR


def test_the_job_of_an_instant_is_the_same_for_every_worker():
    schedule = made()
    [one], [other] = (taken(schedule, NOON + HOUR + late).jobs for late in (1, 1000))

    assert one == other
    [another] = taken(replace(schedule, uid="another"), NOON + HOUR).jobs
    assert another.id != one.id


def test_a_command_is_told_its_instant_in_the_zone_beside_its_own_variables():
    [job] = run_of(made(zone="Asia/Kolkata"), NOON).jobs

    assert job.payload["env"] == {
        "A": "b",
        "RELAYQ_SCHEDULE": "nightly",
        "RELAYQ_INSTANT": "2026-11-21T17:30:00+05:30",
    }


@pytest.mark.parametrize(
    ("overlap", "jobs", "left_out", "cancels", "waits"),
    [
        ("skip", 0, 1, (), None),
        ("queue", 1, 0, (), ("job0",)),
        ("replace", 1, 0, ("job0",), ("job0",)),
        ("allow", 1, 0, (), ()),
    ],
)
def test_what_is_done_while_a_run_goes_on(overlap, jobs, left_out, cancels, waits):
    done = taken(made(overlap=overlap), NOON + HOUR, JobState.RUNNING, JobState.FAILED)

    assert (len(done.jobs), done.left_out, done.cancels) == (jobs, left_out, cancels)
    assert [job.after_any for job in done.jobs] == ([] if waits is None else [waits])
    assert done.going == ("job0", *(job.id for job in done.jobs))


def test_one_that_waits_for_a_person_still_goes_on():
    assert taken(made(), NOON + HOUR, JobState.NEEDS_HUMAN).left_out == 1


def test_of_many_at_once_each_waits_for_those_before():
    done = taken(made(catch_up="all", overlap="queue"), NOON + 3 * HOUR, JobState.RUNNING)

    first, second, third = done.jobs
    assert first.after_any == ("job0",)
    assert third.after_any == ("job0", first.id, second.id)
    assert done.needs == ("job0",)


def test_no_more_than_so_many_wait():
    going = [JobState.WAITING] * (MOST_WAITING - 1)
    done = taken(made(catch_up="all", overlap="queue"), NOON + 3 * HOUR, *going)

    assert (len(done.jobs), done.left_out, len(done.going)) == (1, 2, MOST_WAITING)


def flow_of_three() -> Schedule:
    """A workflow: two steps, then a third, with a halt for all of them."""
    flow, first, second, third = (new_id() for _ in range(4))
    steps = {"a": {"jobs": [first, second]}, "b": {"jobs": [third], "labels": {third: "x"}}}
    halt = {"halts": (flow,), "group": f"flow-{flow}", "flow": flow}
    told = {"cmd": f"echo {flow} x{third}y"}
    jobs = [
        Spec(first, "run_command", {"cmd": "true"}, **halt),
        Spec(second, "run_command", {"cmd": "true"}, **halt),
        Spec(third, "run_command", told, after=(first, second), uses={"a": [first]}, **halt),
    ]
    kept = {"id": flow, "name": "build", "graph": {"steps": steps}, "halts": [[flow, 1]]}
    return replace(made(), jobs=tuple(job.as_dict() for job in jobs), flow=kept)


def test_a_run_of_a_workflow_has_ids_of_its_own_wherever_they_stand():
    schedule = flow_of_three()
    run, again = run_of(schedule, NOON, ("before",)), run_of(schedule, NOON, ("before",))
    another = run_of(schedule, NOON + HOUR)

    assert run == again
    first, second, third = run.jobs
    assert third.after == (first.id, second.id)
    assert third.uses == {"a": [first.id]}
    assert third.payload["cmd"] == f"echo {run.id} x{third.id}y"
    assert {job.flow for job in run.jobs} == {run.id}
    assert {job.group for job in run.jobs} == {f"flow-{run.id}"}
    assert run.flow["graph"]["steps"]["b"] == {"jobs": [third.id], "labels": {third.id: "x"}}
    assert run.flow["halts"] == [[run.id, 1]]
    assert [job.after_any for job in run.jobs] == [("before",), ("before",), ()]
    assert not {job.id for job in run.jobs} & {job.id for job in another.jobs}
    own = {schedule.flow["id"], *(job["id"] for job in schedule.jobs)}
    assert not [id for id in own if id in json.dumps([job.as_dict() for job in run.jobs])]


def test_a_run_by_hand_leaves_what_comes_next():
    before = record(going=("job0",), due_at=NOON + HOUR)
    unended = {"job0": ["job0"]}

    done = by_hand(made(), before, unended, NOON)
    forced = by_hand(made(), before, unended, NOON, force=True)

    assert (done.jobs, len(forced.jobs)) == ((), 1)
    assert (forced.next_at, forced.due_at) == (NOON + HOUR, NOON + HOUR)


@pytest.mark.parametrize("when", ["0 * * * *", "every 20m"])
def test_an_instant_that_was_not_signed_is_a_forgery(when):
    with pytest.raises(BadSignature, match="isn't an instant of"):
        step(made(when), record(NOON + 61), {}, NOON + 120)


def test_a_schedule_is_read_as_it_was_written():
    schedule = made(jitter=5.0, until=NOON + 10 * HOUR)

    assert Schedule.from_dict(json.loads(json.dumps(schedule.as_dict()))) == schedule
    for wrong in ({"v": 2}, {}, {"v": 1, "colour": "red", "jobs": []}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            Schedule.from_dict(wrong)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"catch_up": "maybe"}, "catch_up is one of skip, once, all"),
        ({"overlap": "maybe"}, "overlap is one of skip, queue, replace, allow"),
        ({"catch_up": "all"}, "would leave all but one out"),
        ({"jitter": HOUR}, "is longer than from one run to the next"),
        ({"until": NOON + 60}, "doesn't come before it is to end"),
        ({"catch_up": "all", "overlap": "queue", "flow": {}}, "made up for once"),
        ({"jobs": made().jobs * 1001}, "can't recur: it has 1000 at most"),
        ({"zone": "Mars/Olympus"}, "no such time zone"),
        ({"when": "now and then"}, "what does 'now and then' mean"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(RelayqError, match=said):
        check_schedule(replace(made(), **fields))


@pytest.mark.parametrize("name", ["", "@all", "a b", "x" * 61, "last", "a/b"])
def test_a_name_by_which_its_jobs_could_not_be_found_is_refused(name):
    with pytest.raises(RelayqError):
        check_schedule_name(name)


@pytest.mark.parametrize("option", ["after", "with_job", "delay", "unique", "group"])
def test_what_is_for_one_job_only_is_refused(option):
    with pytest.raises(RelayqError, match="a job that recurs can't be one that"):
        Relay().job.plan_schedule("odd", "daily", "true", **{option: "x"})


def test_a_file_of_this_machine_is_refused_and_a_url_is_not():
    with pytest.raises(RelayqError, match="only what has a URL"):
        Relay().job.plan_schedule("odd", "daily", "true", files_in=["/etc/hosts"])

    planned = Relay().job.plan_schedule("odd", "daily", "true", files_in=["https://host/a"])
    assert planned.spec.files_in


# As it is typed


def typed(*words: str):
    return CliRunner().invoke(group, ["add", *words], catch_exceptions=True)


def planned(*words: str) -> dict:
    done = typed("--dry-run", "--json", *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.output)["schedule"]


def test_the_command_keeps_its_own_options_wherever_ours_stand():
    for words in (
        ("--prio", "high", "nightly", "daily at 3", "ls", "-la", "--json"),
        ("nightly", "--prio", "high", "daily at 3", "--", "ls", "-la", "--json"),
        ("nightly", "daily at 3", "--prio", "high", "ls", "-la", "--json"),
    ):
        found = planned(*words)
        assert found["spec"]["payload"]["cmd"] == ["ls", "-la", "--json"]
        assert (found["name"], found["when"]) == ("nightly", "daily at 3")
        assert found["spec"]["priority"] == 8


def test_a_kind_has_its_fields_and_an_agent_its_prompt():
    kind = planned("nightly", "daily", "--kind", "run_command", "--field", 'cmd=["ls"]')
    agent = planned("nightly", "daily", "--agent", "claude", "--wait-for-host", "say", "hi")

    assert kind["spec"]["payload"]["cmd"] == ["ls"]
    assert agent["spec"]["kind"] == "run_agent"
    assert agent["spec"]["payload"]["prompt"] == "say hi"


def test_a_dry_run_says_when_it_would_come():
    done = typed("dry", "0 9 * * mon-fri", "--dry-run", "ls", "-la")

    assert done.output.count(" 09:00, in ") == 5
    assert "ls -la" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("odd", "daily"), "the command is empty"),
        (("odd",), "WHEN"),
        (("odd", "daily", "--model", "x", "true"), "--model is for an --agent"),
        (("odd", "daily", "--field", "a=b", "true"), "--field is for a --kind"),
        (("odd", "daily", "--kind", "run_command", "true"), "and no command"),
        (("odd", "daily", "--until", "tomorrow", "true"), "--until"),
        (("odd", "daily", "--flow", "x.yml", "true"), "options in its file"),
        (("odd", "daily", "--flow", "x.yml", "--prio", "high"), "options in its file"),
        (("odd", "daily", "--flow", "/nonexistent.yml"), "can't be read"),
    ],
)
def test_what_is_typed_wrong_says_so(words, said):
    done = typed(*words)

    assert done.exit_code != 0
    assert said in done.output + str(done.exception)


@pytest.mark.parametrize(
    ("variable", "zone"),
    [("Europe/Berlin", "Europe/Berlin"), (":America/New_York", "America/New_York"), ("UTC", "UTC")],
)
def test_this_machines_zone_is_the_one_that_its_environment_names(monkeypatch, variable, zone):
    monkeypatch.setenv("TZ", variable)

    assert clock.zone() == zone


def test_this_machines_zone_is_one_that_there_is(monkeypatch):
    for odd in ("", "CET-1CEST,M3.5.0,M10.5.0/3", "/etc/localtime"):
        monkeypatch.setenv("TZ", odd)
        assert ZoneInfo(clock.zone())
