"""Why a job is where it is: every state, every answer of a host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.model.accounts import Account
from relayq.model.explanations import Explanation, Place, Scene, explain, in_words
from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason, Spec

NOW = 1_000_000.0


def span(seconds: float) -> str:
    return f"{seconds:.0f}s"


def spec(**options) -> Spec:
    return Spec(**{"id": "j0b", "kind": "run_command", "payload": {"cmd": "true"}, **options})


def record(state: JobState = JobState.QUEUED, **options) -> JobRecord:
    fields = {
        "id": "j0b",
        "kind": "run_command",
        "state": state,
        "queue": "any",
        "priority": 5,
        "created_at": NOW - 120,
        "spec": spec(),
    }
    return JobRecord(**{**fields, **options})


def host(name: str = "pi4", **options) -> Host:
    fields = {"install": "i", "boot": "b", "slots": 2, "seen_at": NOW - 3, "is_online": True}
    return Host(name=name, **{**fields, **options})


def why(one: JobRecord, place: Place | None = None, **scene) -> Explanation:
    return explain(one, place or Place(now=NOW), Scene(**scene), span=span)


def answers(explained: Explanation) -> dict[str, tuple[str, str]]:
    return {one.host: (one.answer, one.why) for one in explained.hosts}


def test_a_queued_job_says_host_by_host_who_would_take_it():
    explained = why(
        record(queue="host.pi4", created_at=NOW - 5),
        hosts=[host("mac"), host("pi4", active=2)],
        running={"pi4": ("aaaa", "bbbb")},
    )

    assert explained.summary == "is queued for 5s (priority normal, for pi4)"
    assert explained.facts == ("it is the first in its queue",)
    assert answers(explained) == {
        "mac": ("no", "the job is for pi4 only"),
        "pi4": ("busy", "2 of 2 slots busy: aaaa, bbbb"),
    }
    assert explained.options == ("relayq cancel j0b",)


def test_an_offline_host_says_since_when():
    explained = why(record(queue="host.pi4"), hosts=[host(is_online=False, seen_at=NOW - 7200)])

    assert answers(explained) == {"pi4": ("offline", "would take it; last heard of 7200s ago")}
    assert "relayq worker start (on pi4)" in explained.options
    assert "relayq move j0b HOST" in explained.options


def test_a_host_that_never_registered_is_named():
    explained = why(record(queue="host.moon"), hosts=[host()])

    assert "no host called moon has ever registered" in explained.facts
    assert explained.options[0] == "relayq worker start"


def test_without_any_host_it_says_so():
    explained = why(record())

    assert "no host has ever registered with this broker" in explained.facts


def test_jobs_ahead_are_counted_and_the_first_ones_named():
    place = Place(now=NOW, ahead=5, first=("a", "b", "c", "d", "e"))

    explained = why(record(), place, hosts=[host()])

    assert explained.facts == ("5 jobs ahead of it, by priority and time: a, b, c, ...",)
    assert answers(explained)["pi4"] == ("takes it", "2 of 2 slots free, after those ahead of it")
    assert "relayq move j0b --prio urgent" in explained.options


def test_a_free_host_that_has_not_taken_it_for_long_is_suspect():
    fresh = why(record(created_at=NOW - 1), hosts=[host()])
    old = why(record(), hosts=[host()])

    assert "at once" in answers(fresh)["pi4"][1]
    assert "stuck" in answers(old)["pi4"][1]
    assert "relayq doctor" in old.options
    assert "relayq doctor" not in fresh.options


def test_a_waiting_job_names_the_ones_that_are_not_done():
    parents = [
        record(JobState.SUCCEEDED, id="d0ne"),
        record(JobState.RUNNING, id="runs", host="mac"),
    ]

    explained = why(
        record(JobState.WAITING, spec=spec(after=("d0ne", "runs", "gone"))), parents=parents
    )

    assert explained.summary == "waits for 2 of 3 jobs that it comes after, since 120s"
    assert explained.facts == ("runs is running on mac", "gone is forgotten")
    assert explained.options == ("relayq why runs", "relayq why gone", "relayq cancel j0b")


def test_a_waiting_job_says_what_ends_it_waits_for_and_what_follows():
    parents = [record(JobState.FAILED, id="fa1led"), record(JobState.QUEUED, id="queued")]
    tidy = spec(after=("fa1led",), after_any=("queued",), when="always")

    explained = why(record(JobState.WAITING, spec=tidy), parents=parents)

    assert explained.summary == "waits for 1 of 2 jobs that it comes after, since 120s"
    assert explained.facts == ("queued is queued", "it runs however they end")


def test_a_job_that_became_others_waits_for_these():
    parents = [record(JobState.RUNNING, id="runs", host="mac")]

    explained = why(record(JobState.WAITING, spec=spec(), fanned=("runs",)), parents=parents)

    assert explained.summary == "waits for 1 of 1 job that it became, since 120s"


def test_a_job_that_was_halted_names_the_halt_and_no_person():
    ended = record(JobState.CANCELLED, reason="halted", halted="films", finished_at=NOW - 9)

    [fact] = why(ended).facts

    assert "halt films" in fact
    assert "person" not in fact


def test_a_job_that_was_skipped_says_so():
    ended = record(JobState.SUCCEEDED, reason="skipped", finished_at=NOW - 9)

    assert "skipped" in why(ended).facts[0]


def test_a_start_time_is_no_retry():
    explained = why(record(JobState.SCHEDULED, due_at=NOW + 60))

    assert explained.summary == "has a start time: due in 60s, for any host"


def test_a_retry_says_which_one_it_is_and_after_what():
    retried = record(
        JobState.SCHEDULED,
        attempt=2,
        failures=2,
        reason="exit",
        exit_code=75,
        host="pi4",
        due_at=NOW + 4,
        spec=spec(retries=3),
    )

    explained = why(retried)

    assert explained.summary == "is tried again in 4s: retry 2 of 3"
    assert explained.facts == ("attempt 2 on pi4 ended: its command ended with exit code 75",)


def test_a_hosts_fault_is_no_retry_of_the_commands():
    retried = record(
        JobState.SCHEDULED, attempt=1, losses=1, reason="host", host="pi4", due_at=NOW + 4
    )
    outcome = Outcome("j0b", 1, "u", "pi4", JobState.SCHEDULED, "host", error="no room")

    explained = why(retried, outcome=outcome)

    assert explained.summary == "is tried again in 4s: after once of 3 that a host couldn't"
    assert explained.facts == ("attempt 1 on pi4 ended: its host couldn't start it: no room",)


def test_a_running_job_says_its_phase_its_lease_and_its_hosts_last_beat():
    running = record(
        JobState.RUNNING,
        host="pi4",
        phase="started",
        started_at=NOW - 30,
        attempt=1,
        spec=spec(timeout=600.0),
    )

    explained = why(running, Place(now=NOW, deadline=NOW + 48), hosts=[host("mac"), host()])

    assert explained.summary == "runs on pi4 for 30s, attempt 1"
    assert explained.facts == (
        "pi4 is online, last heard of 3s ago",
        "its lease ends in 48s; each beat renews it",
        "its time limit is 600s",
    )
    assert explained.options == ("relayq logs -f j0b", "relayq cancel j0b")


def test_a_claimed_job_has_not_begun():
    claimed = record(JobState.RUNNING, host="pi4", phase="claimed", claimed_at=NOW - 2, attempt=1)

    assert why(claimed).summary.startswith("was claimed, and starts with the first answered beat")


def test_a_cancel_that_is_under_way_is_said():
    running = record(
        JobState.RUNNING, host="pi4", phase="started", started_at=NOW, cancel_at=NOW - 4, attempt=1
    )

    explained = why(running)

    assert "it was cancelled 4s ago" in explained.facts[0]
    assert explained.options == ("relayq wait j0b",)


@pytest.mark.parametrize(
    ("rule", "losses", "verdict"),
    [
        ("retry", 0, "queued again"),
        ("retry", 2, "failed"),
        ("ask", 0, "a question to you"),
        ("fail", 0, "failed"),
    ],
)
def test_a_lost_job_says_which_verdict_falls_when(rule, losses, verdict):
    lost = record(JobState.LOST, host="pi4", losses=losses, spec=spec(on_lost=rule), attempt=1)

    explained = why(lost, Place(now=NOW, deadline=NOW + 20), hosts=[host(is_online=False)])

    assert explained.summary == "is lost: its lease on pi4 ran out"
    assert explained.facts[0] == "pi4 is offline, last heard of 3s ago"
    assert explained.facts[1].startswith(f"the verdict falls in 20s: {verdict}")


def test_a_cancelled_lost_job_will_be_cancelled():
    lost = record(JobState.LOST, host="pi4", cancel_at=NOW - 1, attempt=1)

    assert "cancelled, as was asked" in why(lost).facts[0]


def test_a_job_that_asks_says_where_it_may_still_run():
    parked = record(JobState.NEEDS_HUMAN, reason="lost", host="pi4", attempt=1)

    explained = why(parked, Place(now=NOW, orphan="pi4"))

    assert explained.summary == "waits for a person (lost)"
    assert "an attempt may still run on pi4, which hasn't reported since" in explained.facts
    assert explained.options[0] == "relayq review"


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"reason": "exit", "exit_code": 127}, "command not found"),
        ({"reason": "signal", "signal": 9}, "for want of memory"),
        ({"reason": "signal", "signal": 11}, "signal 11 ended its command"),
        ({"reason": "timeout"}, "its time limit ended it"),
        ({"reason": "lost"}, "its host went away"),
        ({"reason": "refused"}, "see relayq doctor"),
        ({"reason": "upstream"}, "a job that it comes after"),
        ({"reason": "expired"}, "nobody took it"),
        ({"reason": "spawn"}, "couldn't be started: no such directory"),
    ],
)
def test_every_end_has_its_words(ended, words):
    failed = record(JobState.FAILED, host="pi4", attempt=1, finished_at=NOW - 9, **ended)
    outcome = None
    if ended["reason"] == "spawn":
        outcome = Outcome("j0b", 1, "u", "pi4", JobState.FAILED, "spawn", error="no such directory")

    explained = why(failed, outcome=outcome)

    assert words in explained.facts[0]
    assert explained.facts[0].endswith(", 9s ago")
    assert explained.options == ("relayq logs j0b", "relayq retry j0b")


def test_no_reason_is_without_words():
    for reason in Reason:
        said = in_words(
            record(JobState.FAILED, reason=reason.value, exit_code=1, signal=11), None, span
        )
        assert said
        assert "None" not in said


def test_output_that_a_full_disk_cost_is_told():
    ended = record(JobState.SUCCEEDED, reason="exit", exit_code=0, host="pi4", attempt=1)
    outcome = Outcome("j0b", 1, "u", "pi4", JobState.SUCCEEDED, "exit", dropped_bytes=7)

    facts = why(ended, outcome=outcome).facts

    assert "7 bytes of its output were lost: the disk of pi4 was full" in facts


def test_every_state_is_explained():
    for state in JobState:
        explained = why(replace(record(state), attempt=1, host="pi4", reason="exit", exit_code=0))
        assert explained.summary
        assert explained.options


def test_what_a_job_asks_is_said_in_words():
    queue = "needs.camera,ffmpeg,cuda=2,memory_bytes=8000000000,!pi*,on=@heavy|mini"

    explained = why(record(queue=queue, created_at=NOW - 5), hosts=[host()])

    assert explained.summary == (
        "is queued for 5s (priority normal, for @heavy or mini with camera and ffmpeg and 2 cuda "
        "and 8.0 GB memory, but not pi*)"
    )


def test_a_drained_host_can_be_undrained():
    drained = host(drained_at=NOW - 9, drained_reason="new disk")

    explained = why(record(), hosts=[drained])

    assert answers(explained) == {"pi4": ("not now", "drained: new disk")}
    assert explained.options == ("relayq hosts undrain pi4", "relayq cancel j0b")


def test_a_job_beside_one_without_a_host_refers_to_that():
    explained = why(record(queue="with.l3ad"), hosts=[host()])

    assert "is to run where l3ad does" in answers(explained)["pi4"][1]
    assert explained.options[0] == "relayq why l3ad"


# Agents' jobs


def test_a_job_whose_account_is_paused_says_until_when():
    one = record(queue="needs.kind:run_agent,account=claude/default", kind="run_agent")
    account = Account("claude/default", until=NOW + 3600, reason="five_hour")
    capable = {"capabilities": ["kind:run_agent", "agent:claude"]}

    found = why(one, Place(now=NOW, accounts=(account,)), hosts=[host(facts=capable)])

    [said] = [fact for fact in found.facts if "claude/default" in fact]
    assert said.startswith("claude/default waits for its limit until ")
    assert found.hosts[0].answer == "busy"
    assert found.hosts[0].why == said


def test_a_parked_question_and_its_choices_are_shown():
    asked = {"question": "Log in?", "choices": ("go on", "stop")}
    one = record(JobState.NEEDS_HUMAN, reason="auth", **asked)

    found = why(one)

    assert found.facts == ("it asks: Log in?", "choice 1: go on", "choice 2: stop")
    assert "relayq answer j0b TEXT" in found.options


def test_a_question_of_a_running_job_is_shown():
    one = record(JobState.RUNNING, phase="started", question="Which branch?", asks="q1")

    found = why(one)

    assert found.facts[0] == "it asks a person: Which branch?"
    assert found.options[0] == "relayq answer j0b TEXT"
