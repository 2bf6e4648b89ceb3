"""What the command line shows of retries, of jobs that wait for a person, and of failed ones."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from relayq.cli import details, failures, reviews, show
from relayq.model.jobs import JobRecord, JobState, Spec
from relayq.reviews import Failure, Review

SPEC = Spec(
    "3f2a00000000",
    "run_command",
    {"cmd": "make"},
    timeout=18_000,
    retries=3,
    backoff=(1.0, 60.0),
    retry_on=("exit:75", "timeout"),
)
SCHEDULED = JobRecord(
    SPEC.id,
    SPEC.kind,
    JobState.SCHEDULED,
    "any",
    priority=5,
    created_at=1000.0,
    spec=SPEC,
    attempt=2,
    host="pi4",
    reason="exit",
    exit_code=75,
    failures=2,
    due_at=1012.0,
)
LOST = replace(
    SCHEDULED, state=JobState.NEEDS_HUMAN, reason="lost", exit_code=None, finished_at=1000.0
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "retry 2/3 in 12s (exit 75)"),
        ({"reason": "timeout"}, "retry 2/3 in 12s (time limit of 18000 s)"),
        ({"reason": "signal", "signal": 9}, "retry 2/3 in 12s (signal 9)"),
        ({"reason": "host"}, "tried again in 12s (its host couldn't start it)"),
        ({"attempt": 0, "reason": None}, "due in 12s"),
    ],
)
def test_a_scheduled_job_says_when_it_comes_and_why(changes, said):
    record = replace(SCHEDULED, **changes)

    [row] = show.job_rows([record], now=1000.0, columns=("PROGRESS",))

    assert row == [said]


def test_details_have_the_policy_and_how_the_last_attempt_ended():
    lines = details.job_details(SCHEDULED, None, 1000.0)

    assert "  Next try  retry 2/3 in 12s (exit 75)" in lines
    assert "  Last try  exit 75" in lines
    assert any(line.endswith("after 1s to 1m on exit:75, timeout") for line in lines)


def shown(*, question: str = "which?", last_line: str = "", **options) -> str:
    facts = {"host_seen_at": 400.0, "rebooted": False, "may_run": False} | options
    one = Review(LOST, question, ("done", "pending", "failed"), last_line=last_line, **facts)
    return "\n".join(reviews._lines(one, "3f2a", 1000.0))


def test_a_review_says_what_is_known_and_what_to_type():
    assert shown(last_line="epoch 12") == (
        "3f2a  pi4  run_command  0s  which?  [done|pending|failed]\n"
        "      pi4 was last heard of 10m ago, host has rebooted since: no\n"
        "      last line: epoch 12\n"
        "      relayq resolve 3f2a done | relayq resolve 3f2a pending | "
        "relayq resolve 3f2a failed | relayq logs 3f2a"
    )


def test_a_review_warns_of_an_attempt_that_may_still_run():
    told = shown(may_run=True, rebooted=None)

    assert "rebooted since: unknown; that attempt may still run there" in told
    assert "relayq resolve 3f2a pending --force" in told


def test_a_review_of_a_host_that_is_gone_says_so():
    assert "pi4 isn't known any more" in shown(host_seen_at=None, rebooted=None)


def test_a_jobs_own_text_stays_harmless():
    assert "\x1b" not in shown(question="\x1b[2Jwhich?", last_line="\x1b]0;x\x07")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("3f2a", "done"), (("3f2a",), "done")),
        (("3f2a", "91d0", "pending"), (("3f2a", "91d0"), "pending")),
        (("all",), (("all",), "done")),
        (("all", "failed"), (("all",), "failed")),
        (("@night", "failed"), (("@night",), "failed")),
    ],
)
def test_the_last_word_is_the_verdict(words, meant):
    assert reviews._read(words, described=False) == meant


@pytest.mark.parametrize("words", [(), ("done",), ("3f2a",), ("3f2a", "perhaps")])
def test_a_verdict_needs_a_job_and_a_word(words):
    with pytest.raises(click.UsageError):
        reviews._read(words, described=False)


@pytest.mark.parametrize(
    ("changes", "dead", "why"),
    [
        ({"reason": "exit", "exit_code": 127}, False, "exit 127"),
        ({"reason": "timeout"}, False, "timeout 5h"),
        ({"reason": "lost", "losses": 3}, True, "lost x3 (dead)"),
        ({"reason": "host", "losses": 3}, True, "no room (dead)"),
    ],
)
def test_a_failure_says_why_in_a_few_words(changes, dead, why):
    record = replace(SCHEDULED, state=JobState.FAILED, finished_at=940.0, **changes)
    text = "no room" if changes["reason"] == "host" else f"exit {record.exit_code}"
    one = Failure(record, text, "", dead, f"retry {record.id}")

    assert failures._rows([one], 1000.0) == [["3f2a", "pi4", "1m", why, "-", "retry 3f2a"]]
