"""What a run of a workflow is as a whole, and what is said of its jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.cli import flowviews
from relayq.flowruns import StepJob, is_going, percent_of, whole_state
from relayq.model.jobs import JobRecord, JobState, Reason, Spec
from relayq.model.progress import Progress

_SPEC = Spec("a", "run_command", {"cmd": "x"}, step="s")
STATES = {
    "good": (JobState.SUCCEEDED, Reason.EXIT),
    "skipped": (JobState.SUCCEEDED, Reason.SKIPPED),
    "bad": (JobState.FAILED, Reason.EXIT),
    "upstream": (JobState.FAILED, Reason.UPSTREAM),
    "lenient": (JobState.FAILED, Reason.EXIT),
    "cancelled": (JobState.CANCELLED, Reason.USER),
    "halted": (JobState.CANCELLED, Reason.HALTED),
    "human": (JobState.NEEDS_HUMAN, "turns"),
    "running": (JobState.RUNNING, None),
    "waiting": (JobState.WAITING, None),
}


def step(word: str, number: int = 0, **changed) -> StepJob:
    state, reason = STATES[word]
    spec = replace(_SPEC, id=f"j{number}", is_lenient=word == "lenient", **changed.pop("spec", {}))
    record = JobRecord(spec.id, spec.kind, state, "any", 5, 0.0, spec=spec, reason=reason)
    record = replace(record, exit_code=3, **changed)
    return StepJob(f"s{number}", "", record, is_child=word == "child")


def run(*words: str) -> list[StepJob]:
    return [step(word, number) for number, word in enumerate(words)]


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("good skipped", "succeeded"),
        ("good lenient", "succeeded"),
        ("good bad upstream", "failed"),
        ("bad halted", "failed"),
        ("good cancelled", "cancelled"),
        ("good running bad", "running"),
        ("good waiting running", "running"),
        ("human running", "running"),
        ("human waiting good", "needs_human"),
        ("human bad", "needs_human"),
        ("", "succeeded"),
    ],
)
def test_a_run_is_what_its_jobs_make_of_it(words, state):
    jobs = run(*words.split())

    assert whole_state(jobs) == state
    assert is_going(jobs) == (state == "running")


def test_a_run_that_somebody_cancelled_is_cancelled_whatever_failed_before():
    assert whole_state(run("bad", "cancelled"), is_cancelled=True) == "cancelled"
    assert whole_state(run("bad", "good"), is_cancelled=True) == "failed"


def test_progress_is_in_percent_and_a_running_job_counts_as_far_as_it_says():
    half = step("running", 1, progress=Progress(0.5, "", 0.0))

    assert percent_of([step("good"), half, step("waiting", 2), step("bad", 3)]) == 62.5
    assert percent_of([]) == 100.0


def test_a_note_says_why_a_job_is_where_it_is():
    first, second = step("running", 0), step("good", 1)
    waiting = step("waiting", 2, spec={"after": ("j0", "j1")})

    def note(one: StepJob) -> str:
        return flowviews.note_of(one.record, [first, second, waiting], 0.0)

    assert note(waiting) == "after s0"
    assert note(step("bad")) == "exit 3"
    assert note(step("lenient")) == "exit 3 (continues)"
    assert note(step("upstream")) == "a step before it failed"
    assert note(step("halted")) == "another one failed"
    assert note(step("skipped", attempt=1)) == "its condition isn't true"
    assert note(step("skipped")) == "a step before it was skipped"
    assert note(step("skipped", spec={"when": "failure"})) == "nothing failed"


def test_what_failed_by_itself_is_told_and_what_to_type_then(capsys):
    flowviews.conclude("abcd", "failed", run("good", "bad", "upstream", "lenient"))

    said = capsys.readouterr().err
    assert said.splitlines() == [
        "relayq: s1 failed: exit 3",
        "relayq: abcd  failed: 1 succeeded, 3 failed",
        "  hint: relayq logs j1; then relayq flow retry abcd",
    ]
