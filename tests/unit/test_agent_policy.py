"""What becomes of a job after its agent's run, class by class."""

from __future__ import annotations

import pytest

from relayq.agents.answers import Answer, Denial, ErrorClass, Status
from relayq.agents.classify import STATUSES
from relayq.agents.invocation import CONTINUE
from relayq.agents.policy import PATIENCE, decide
from relayq.model.jobs import JobState, Reason

NOW = 1000.0


def answer(error_class=None, **known):
    status = STATUSES[error_class] if error_class else Status.OK
    known.setdefault("session_id", "s")
    return Answer(agent="claude", status=status, error_class=error_class, host="mini", **known)


def decided(error_class, *, failures=0, fallbacks=False, jitter=0.0, **known):
    return decide(
        answer(error_class, **known),
        failures=failures,
        fallbacks=fallbacks,
        jitter=jitter,
        now=NOW,
    )


# What each class leads to the first time: state, reason, delay, whether it counts.
TABLE = [
    (None, JobState.SUCCEEDED, Reason.EXIT, None, True),
    (ErrorClass.NEEDS_REVIEW, JobState.NEEDS_HUMAN, Reason.EXIT, None, True),
    (ErrorClass.RATE_LIMITED, JobState.SCHEDULED, Reason.QUOTA, 60, True),
    (ErrorClass.USAGE_LIMIT, JobState.SCHEDULED, Reason.QUOTA, None, False),
    (ErrorClass.OVERLOADED, JobState.SCHEDULED, Reason.EXIT, 30, True),
    (ErrorClass.TRANSIENT, JobState.SCHEDULED, Reason.EXIT, 30, True),
    (ErrorClass.AUTH, JobState.NEEDS_HUMAN, Reason.AUTH, None, True),
    (ErrorClass.BILLING, JobState.NEEDS_HUMAN, Reason.QUOTA, None, True),
    (ErrorClass.INVALID, JobState.FAILED, Reason.EXIT, None, True),
    (ErrorClass.UNTRUSTED, JobState.FAILED, Reason.EXIT, None, True),
    (ErrorClass.ROOT, JobState.FAILED, Reason.SPAWN, None, True),
    (ErrorClass.SESSION_NOT_FOUND, JobState.FAILED, Reason.EXIT, None, True),
    (ErrorClass.SESSION_EXISTS, JobState.SCHEDULED, Reason.EXIT, 1, True),
    (ErrorClass.SESSION_IN_USE, JobState.SCHEDULED, Reason.EXIT, 15, False),
    (ErrorClass.CONTEXT_OVERFLOW, JobState.FAILED, Reason.EXIT, None, True),
    (ErrorClass.OUTPUT_LIMIT, JobState.SCHEDULED, Reason.EXIT, 1, True),
    (ErrorClass.REFUSED, JobState.NEEDS_HUMAN, Reason.EXIT, None, True),
    (ErrorClass.MAX_TURNS, JobState.NEEDS_HUMAN, Reason.EXIT, None, True),
    (ErrorClass.BUDGET, JobState.NEEDS_HUMAN, Reason.QUOTA, None, True),
    (ErrorClass.STALLED, JobState.SCHEDULED, Reason.EXIT, 30, True),
    (ErrorClass.TIMED_OUT, JobState.FAILED, Reason.TIMEOUT, None, True),
    (ErrorClass.CANCELLED, JobState.CANCELLED, Reason.USER, None, True),
    (ErrorClass.CRASHED, JobState.SCHEDULED, Reason.EXIT, 5, True),
    (ErrorClass.MISSING, JobState.FAILED, Reason.SPAWN, None, True),
]


@pytest.mark.parametrize(("error_class", "state", "reason", "delay", "counts"), TABLE)
def test_each_class_leads_to_its_end(error_class, state, reason, delay, counts):
    decision = decided(error_class)

    assert (decision.state, decision.reason) == (state, reason)
    assert (decision.delay, decision.counts) == (delay, counts)
    assert bool(decision.question) == bool(decision.choices) == (state == JobState.NEEDS_HUMAN)


def test_the_table_has_every_class():
    assert {row[0] for row in TABLE} == {None, *ErrorClass}
    assert STATUSES.keys() == set(ErrorClass)


@pytest.mark.parametrize("error_class", [c for c, p in PATIENCE.items() if p.counts])
def test_a_class_is_tried_again_only_so_often(error_class):
    tries = PATIENCE[error_class].tries

    states = [decided(error_class, failures=failures).state for failures in range(tries + 1)]

    assert states == [JobState.SCHEDULED] * (tries - 1) + [JobState.FAILED] * 2


def test_waits_grow_to_half_an_hour():
    delays = [decided(ErrorClass.RATE_LIMITED, failures=failures).delay for failures in range(7)]

    assert delays == [60, 120, 240, 480, 960, 1800, 1800]
    assert decided(ErrorClass.RATE_LIMITED, jitter=0.5).delay == 67.5
    assert decided(ErrorClass.SESSION_IN_USE, failures=5000).delay == 15


def test_a_wait_that_the_api_asks_for_is_kept():
    assert decided(ErrorClass.RATE_LIMITED, retry_after=300.0).delay == 300
    assert decided(ErrorClass.RATE_LIMITED, retry_after=2.0).delay == 60
    assert decided(ErrorClass.OVERLOADED, retry_after=1e9).delay == 1800


def test_too_many_requests_hold_back_the_account_as_long():
    decision = decided(ErrorClass.RATE_LIMITED)

    assert decision.pauses_account
    assert decision.account_until == NOW + 60


@pytest.mark.parametrize(
    ("resets_at", "jitter", "until"),
    [
        (NOW + 3600, 0.0, NOW + 3630),
        (NOW + 3600, 0.999, pytest.approx(NOW + 3720, abs=1)),
        (NOW - 60, 0.0, NOW + 30),
        (None, 0.0, NOW + 1830),
        (1e300, 0.0, NOW + 1830),
    ],
)
def test_a_usage_limit_parks_the_job_and_its_account_until_the_reset(resets_at, jitter, until):
    decision = decided(ErrorClass.USAGE_LIMIT, resets_at=resets_at, jitter=jitter, failures=50)

    assert decision.state == JobState.SCHEDULED
    assert decision.until == decision.account_until == until
    assert not decision.counts


RESUMED = [ErrorClass.USAGE_LIMIT, *PATIENCE]


@pytest.mark.parametrize("error_class", RESUMED)
def test_a_session_is_gone_on_with_where_it_lives(error_class):
    assert decided(error_class).stays_on_host
    assert not decided(error_class, session_id=None).stays_on_host


@pytest.mark.parametrize(
    "error_class",
    [ErrorClass.USAGE_LIMIT, ErrorClass.BILLING, ErrorClass.AUTH, ErrorClass.MISSING],
)
def test_another_agent_takes_over_at_once_where_the_job_names_one(error_class):
    decision = decided(error_class, fallbacks=True)

    assert decision.state == JobState.SCHEDULED
    assert (decision.tries_next_agent, decision.delay, decision.counts) == (True, 0, False)
    # Its account is paused all the same, for everybody.
    assert decision.account_until == decided(error_class).account_until
    # The session is the other agent's: no host is nearer to it.
    assert not decision.stays_on_host
    assert not decided(error_class).tries_next_agent


@pytest.mark.parametrize(
    "error_class", [ErrorClass.RATE_LIMITED, ErrorClass.OVERLOADED, ErrorClass.TRANSIENT]
)
def test_another_agent_takes_over_when_an_api_had_its_tries(error_class):
    last = PATIENCE[error_class].tries - 1

    assert not decided(error_class, fallbacks=True, failures=last - 1).tries_next_agent
    assert decided(error_class, fallbacks=True, failures=last).tries_next_agent


def test_another_agent_is_not_tried_for_what_is_wrong_with_the_job():
    for error_class in (ErrorClass.INVALID, ErrorClass.REFUSED, ErrorClass.BUDGET):
        assert not decided(error_class, fallbacks=True).tries_next_agent
    assert not decided(ErrorClass.CRASHED, fallbacks=True, failures=9).tries_next_agent


def test_an_account_without_credit_is_paused_and_asked_about():
    decision = decided(ErrorClass.BILLING)

    assert decision.account_until == NOW + 3600
    assert "no credit" in decision.question


def test_denied_tools_can_be_allowed_with_one_choice():
    denials = (Denial("Bash", "make test", "Bash"), Denial("Bash", "rm x", "Bash"), Denial("Edit"))

    decision = decided(ErrorClass.NEEDS_REVIEW, denials=denials)

    assert "Bash: make test; Bash: rm x; Edit" in decision.question
    first, second, *rest = decision.choices
    assert first.allow == ("Bash",)
    assert first.text.endswith(CONTINUE)
    assert second.allow == ()
    assert [choice.verdict for choice in rest] == ["done", "failed"]
    assert first.as_dict() == {
        "label": "allow Bash and go on",
        "text": first.text,
        "allow": ["Bash"],
        "verdict": "",
    }


def test_an_answer_in_the_wrong_form_can_be_asked_for_again_or_taken():
    decision = decided(
        ErrorClass.NEEDS_REVIEW, message="its answer isn't in the form that was asked for"
    )

    assert "isn't in the form that was asked for" in decision.question
    assert [choice.verdict for choice in decision.choices] == ["", "done", "failed"]


def test_a_question_says_who_where_and_what_the_agent_said():
    question = decided(ErrorClass.AUTH, message="Not logged in").question

    assert "claude isn't logged in on mini" in question
    assert question.endswith("(Not logged in)")


@pytest.mark.parametrize("error_class", [ErrorClass.MAX_TURNS, ErrorClass.BUDGET])
def test_what_is_used_up_goes_on_in_the_same_session(error_class):
    first = decided(error_class).choices[0]

    assert (first.text, first.verdict) == (CONTINUE, "")


@pytest.mark.parametrize(
    ("error_class", "state"),
    [
        (ErrorClass.NEEDS_REVIEW, JobState.SUCCEEDED),
        (ErrorClass.REFUSED, JobState.FAILED),
        (ErrorClass.MAX_TURNS, JobState.FAILED),
        (ErrorClass.BUDGET, JobState.FAILED),
        (ErrorClass.AUTH, JobState.NEEDS_HUMAN),
        (ErrorClass.BILLING, JobState.NEEDS_HUMAN),
        (ErrorClass.OVERLOADED, JobState.SCHEDULED),
    ],
)
def test_a_job_that_nobody_attends_asks_only_for_what_is_the_whole_accounts(error_class, state):
    decision = decide(
        answer(error_class), failures=0, fallbacks=False, jitter=0.0, now=NOW, asks=False
    )

    assert decision.state is state
    assert bool(decision.question) is (state is JobState.NEEDS_HUMAN)
