"""When an attempt that failed is followed by another."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relayq.errors import RelayqError
from relayq.model.jobs import JobRecord, JobState, Reason, Spec, new_id
from relayq.model.retries import (
    CAUSES,
    RetryPolicy,
    decide,
    delay_after_fault,
    is_dead,
    read_backoff,
    read_retry_on,
)


def after_exit(policy: RetryPolicy, failures: int, *, code: int = 1, jitter: float = 1.0):
    return decide(policy, Reason.EXIT, code, failures, jitter=jitter)


def test_without_retries_the_first_failure_is_the_last():
    assert after_exit(RetryPolicy(), 1) is None


def test_as_many_further_attempts_follow_as_were_allowed():
    policy = RetryPolicy(retries=2)

    assert [after_exit(policy, failures) is None for failures in (1, 2, 3)] == [False, False, True]


def test_delays_grow_by_the_factor_up_to_a_limit():
    policy = RetryPolicy(retries=9, first_delay=1.0, factor=3.0, longest_delay=10.0)

    assert [after_exit(policy, failures) for failures in range(1, 6)] == [1.0, 3.0, 9.0, 10.0, 10.0]


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 4.0), (0.5, 6.0), (1.0, 8.0)])
def test_jitter_spreads_a_delay_over_its_upper_half(jitter, delay):
    assert after_exit(RetryPolicy(retries=9), 4, jitter=jitter) == delay


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_without_jitter_a_delay_is_exact(jitter):
    assert after_exit(RetryPolicy(retries=9, is_jittered=False), 4, jitter=jitter) == 8.0


@settings(max_examples=30)
@example(failures=5000, jitter=0.5)
@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_no_number_of_failures_breaks_the_policy(failures, jitter):
    policy = RetryPolicy(retries=10_000)

    delay = after_exit(policy, failures, jitter=jitter)

    assert delay is not None
    assert 0.5 <= delay <= policy.longest_delay


# Which ends are tried again


@pytest.mark.parametrize(
    ("retry_on", "covered"),
    [
        (("exit", "signal"), {"exit", "signal", "oom"}),
        (("timeout",), {"timeout"}),
        (("exit:75",), set()),
        (("all",), {"exit", "signal", "oom", "timeout", "output", "spawn", "files"}),
    ],
)
def test_only_the_ends_that_were_named_are_tried_again(retry_on, covered):
    policy = RetryPolicy(retries=9, retry_on=retry_on)

    tried = {reason for reason in Reason if decide(policy, reason, 1, 1, jitter=0.0) is not None}

    assert tried == covered


@pytest.mark.parametrize("reason", ["refused", "user", "upstream", "auth", "lost", "host"])
def test_what_is_no_end_of_the_command_is_never_counted_against_it(reason):
    assert decide(RetryPolicy(retries=9, retry_on=("all",)), reason, None, 1, jitter=0.0) is None


def test_single_exit_codes_are_tried_again():
    policy = RetryPolicy(retries=9, retry_on=("exit:75", "exit:111"))

    assert [after_exit(policy, 1, code=code) is None for code in (1, 75, 111)] == [
        True,
        False,
        False,
    ]


def test_a_signal_of_that_number_is_no_such_exit_code():
    assert decide(RetryPolicy(9, retry_on=("exit:9",)), "signal", None, 1, jitter=0.0) is None


def test_a_policy_is_what_the_spec_says():
    spec = Spec(
        new_id(),
        "run_command",
        {},
        retries=3,
        backoff=(2.0, 8.0),
        backoff_factor=4.0,
        backoff_jitter=False,
        retry_on=("timeout",),
    )

    policy = RetryPolicy.of(Spec.from_dict(spec.as_dict()))

    assert policy == RetryPolicy(3, 2.0, 8.0, 4.0, False, ("timeout",))


# What its host couldn't start


def test_a_hosts_fault_is_tried_again_unasked_up_to_the_crash_limit():
    policy = RetryPolicy(is_jittered=False)

    delays = [delay_after_fault(policy, n, crash_limit=4, jitter=0.0) for n in (1, 2, 3, 4, 5)]

    assert delays == [1.0, 2.0, 4.0, None, None]


@pytest.mark.parametrize(
    ("state", "reason", "dead"),
    [
        (JobState.FAILED, "lost", True),
        (JobState.FAILED, "host", True),
        (JobState.FAILED, "exit", False),
        (JobState.SCHEDULED, "host", False),
        (JobState.NEEDS_HUMAN, "lost", False),
    ],
)
def test_a_job_is_dead_when_its_hosts_failed_and_not_its_command(state, reason, dead):
    record = JobRecord(new_id(), "run_command", state, "any", 5, 0.0, reason=reason)

    assert is_dead(record) is dead


# What people type


@pytest.mark.parametrize(
    ("text", "backoff"),
    [
        ("1s..60s", (1.0, 60.0)),
        ("500ms..1m", (0.5, 60.0)),
        ("10s", (10.0, 10.0)),
        ((1, 2), (1.0, 2.0)),
        ("0..0", (0.0, 0.0)),
    ],
)
def test_a_backoff_is_a_first_and_a_longest_delay(text, backoff):
    assert read_backoff(text) == backoff


@pytest.mark.parametrize("text", ["", "..", "60s..1s", "1s..", "soon", (1,), (1, 2, 3), (-1, 2)])
def test_another_backoff_is_refused(text):
    with pytest.raises(RelayqError, match="first and a longest delay"):
        read_backoff(text)


@pytest.mark.parametrize(
    ("given_", "causes"),
    [
        ("exit", ("exit",)),
        ("timeout, signal", ("timeout", "signal")),
        ("exit:75,111", ("exit:75", "exit:111")),
        ("75", ("exit:75",)),
        (["exit:75", "timeout", "exit:75"], ("exit:75", "timeout")),
        ([75, 111], ("exit:75", "exit:111")),
        ("all", ("all",)),
    ],
)
def test_causes_are_words_and_exit_codes(given_, causes):
    assert read_retry_on(given_) == causes


@pytest.mark.parametrize("text", ["", ",", "lost", "exit:", "exit:0", "exit:256", "exit:x", "-1"])
def test_another_cause_is_refused_with_those_that_there_are(text):
    with pytest.raises(RelayqError, match=", ".join(CAUSES)):
        read_retry_on(text)
