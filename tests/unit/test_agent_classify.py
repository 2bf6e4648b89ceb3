"""Which class a failure is of, where no recording of a real run has it."""

from __future__ import annotations

import pytest

from relayq.agents import classify
from relayq.agents.answers import ErrorClass, Status
from relayq.agents.events import Exited, Finished, Limited, Retrying
from relayq.agents.order import Order
from relayq.agents.summaries import Summary

NOW = 1_795_222_000.0


def classified(*events, stderr="", exit_code=1, ended_by=None, parser="claude_stream", **asked):
    summary = Summary()
    for event in events:
        summary.add(event)
    return classify.answer(
        summary,
        order=Order(agent="claude", adapter={"parser": parser}, prompt="hi", **asked),
        stderr=stderr,
        exit_code=exit_code,
        signal=None,
        ended_by=ended_by,
        now=NOW,
    )


def failed(error="", **known):
    return Finished(is_error=True, error=error, **known)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("Claude AI usage limit reached|1795225576", ErrorClass.USAGE_LIMIT),
        ("You've hit your Opus limit · resets 3pm (UTC)", ErrorClass.USAGE_LIMIT),
        ("You've hit your weekly limit · resets Nov 24 at 4pm (UTC)", ErrorClass.USAGE_LIMIT),
        ("You’ve hit your limit · resets 3pm (UTC)", ErrorClass.USAGE_LIMIT),
        ("You're out of extra usage · resets 3pm (UTC)", ErrorClass.USAGE_LIMIT),
        ("Server is temporarily limiting requests (not your usage limit)", "rate_limited"),
        ("You're out of usage credits", ErrorClass.BILLING),
        ("You've hit your monthly spend limit", ErrorClass.BILLING),
        ("Credit balance is too low", ErrorClass.BILLING),
        ("Invalid API key · Fix external API key", ErrorClass.AUTH),
        ("Missing environment variable: `OPENAI_API_KEY`.", ErrorClass.AUTH),
        ("OAuth token has expired", ErrorClass.AUTH),
        ("Prompt is too long", ErrorClass.CONTEXT_OVERFLOW),
        ("response exceeded the 64000 output token maximum", ErrorClass.OUTPUT_LIMIT),
        ("Repeated 529 Overloaded errors", ErrorClass.OVERLOADED),
        ("Selected model is at capacity: server is at capacity", ErrorClass.OVERLOADED),
        ("Unable to connect to API (ConnectionRefused)", ErrorClass.TRANSIENT),
        ("Request timed out", ErrorClass.TRANSIENT),
        ("stream disconnected before completion: Transport error: x", ErrorClass.TRANSIENT),
        ("rate limit exceeded: Please try again in 1.5s.", ErrorClass.RATE_LIMITED),
        ("something nobody has seen before", ErrorClass.CRASHED),
    ],
)
def test_a_text_has_its_class(error, expected):
    assert classified(failed(error)).error_class == expected


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("Error: Not inside a trusted directory and --skip-git-repo-check wasn't", "untrusted"),
        ("WARNING: proceeding, even so\nerror: unexpected argument '--x' found", "invalid"),
        ("Error: When using --print, --output-format=stream-json requires --verbose", "invalid"),
        ("Segmentation fault", "crashed"),
    ],
)
def test_an_agent_that_did_not_come_up_says_why_on_standard_error(stderr, expected):
    assert classified(stderr=stderr).error_class == expected


def test_a_good_answer_may_hold_any_words():
    text = "Credit balance is too low. You've hit your usage limit. Not logged in. 429"

    answer = classified(Finished(is_error=False, text=text), exit_code=1)

    assert (answer.status, answer.text) == (Status.OK, text)


def test_a_text_says_more_than_a_status():
    assert classified(failed("Credit balance is too low", status=400)).error_class == "billing"
    assert classified(failed("x", status=400)).error_class == ErrorClass.INVALID
    assert classified(failed("x", status=418)).error_class == ErrorClass.INVALID
    assert classified(failed("x", status=520)).error_class == ErrorClass.TRANSIENT


def test_an_agent_s_own_word_says_more_than_a_text():
    over = failed("Prompt is too long", causes=("error_max_turns",))

    assert classified(over, Limited(NOW + 60, is_rejected=True)).error_class == ErrorClass.MAX_TURNS


def test_claude_s_word_for_any_error_of_a_server_says_less_than_its_text():
    full = failed("Repeated 529 Overloaded errors", causes=("success", "server_error"))

    assert classified(full).error_class == ErrorClass.OVERLOADED
    assert classified(failed("x", causes=("server_error",))).error_class == ErrorClass.TRANSIENT


def test_an_exit_code_helps_where_the_last_word_has_no_status():
    answer = classified(failed("slow down"), Exited(status=429), exit_code=173)

    assert answer.error_class == ErrorClass.RATE_LIMITED


def test_a_long_wait_that_is_announced_is_a_limit_of_the_account():
    short = classified(failed(status=429, retry_after=900.0))
    long = classified(failed(status=429, retry_after=901.0))

    assert (short.error_class, short.retry_after) == (ErrorClass.RATE_LIMITED, 900)
    assert (long.error_class, long.resets_at) == (ErrorClass.USAGE_LIMIT, NOW + 901)


def test_a_wait_is_read_from_the_text_where_no_number_stands():
    answer = classified(failed("rate limit exceeded: Please try again in 1.5s."))

    assert answer.retry_after == 1.5


def test_a_reset_that_no_limit_can_have_is_unknown():
    answer = classified(Limited(NOW + 1e9, is_rejected=True), failed(status=429))

    assert (answer.error_class, answer.resets_at) == (ErrorClass.USAGE_LIMIT, None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(429, "rate_limited"), (401, "auth"), (529, "overloaded"), (500, "transient")],
)
def test_a_wait_that_relayq_ended_is_of_the_class_of_what_it_waited_for(status, expected):
    answer = classified(Retrying(3, 30.0, "", status), exit_code=None, ended_by="throttle")

    assert answer.error_class == expected


def test_an_agent_that_succeeded_just_before_it_was_ended_has_succeeded():
    done = Finished(is_error=False, text="fine")

    assert classified(done, ended_by="throttle").status == Status.OK
    assert classified(done, ended_by="stall").status == Status.OK


def test_a_message_is_what_tells_something_and_short():
    noise = "\x1b[31mWarning: basic terminal\n    at foo (bar.js:1)\nYOLO mode is enabled. x\n"
    answer = classified(stderr=noise + "it fell over\n" + "y" * 5000)

    assert len(answer.message) <= 2000
    assert classified(stderr=noise + "it fell over").message == "it fell over"
    assert classified(stderr=noise).message == "it ended without a last word (exit code 1)"


def test_an_agent_that_only_prints_can_answer_in_a_form():
    done = Finished(is_error=False, text='```json\n{"a": 1}\n```', is_judged_by_exit=True)

    answer = classified(done, parser="text", schema={"type": "object"})

    assert (answer.status, answer.structured) == (Status.OK, {"a": 1})


def test_a_run_that_never_began_has_an_answer_too():
    order = Order(agent="claude", adapter={}, prompt="hi", account="home", host="mini")

    answer = classify.failure(order, ErrorClass.MISSING, "no such program: claude")

    assert (answer.status, answer.error_class) == (Status.FAILED, ErrorClass.MISSING)
    assert (answer.account, answer.host) == ("claude/home", "mini")
    assert answer.message == "no such program: claude"
