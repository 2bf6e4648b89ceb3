"""When a failed attempt is tried again."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relayq.model.retries import RetryPolicy


def test_without_retries_the_first_failure_is_the_last():
    assert RetryPolicy().delay_after(1, jitter=0.0) is None


def test_as_many_further_attempts_follow_as_were_allowed():
    policy = RetryPolicy(retries=2)

    delays = [policy.delay_after(failures, jitter=0.0) for failures in (1, 2, 3)]

    assert [delay is None for delay in delays] == [False, False, True]


def test_delays_double_up_to_a_limit():
    policy = RetryPolicy(retries=9, first_delay=1.0, factor=2.0, longest_delay=10.0)

    delays = [policy.delay_after(failures, jitter=1.0) for failures in range(1, 7)]

    assert delays == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 4.0), (0.5, 6.0), (1.0, 8.0)])
def test_jitter_spreads_a_delay_over_its_upper_half(jitter, delay):
    assert RetryPolicy(retries=9).delay_after(4, jitter=jitter) == delay


@settings(max_examples=30)
@example(failures=5000, jitter=0.5)
@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_no_number_of_failures_breaks_the_policy(failures, jitter):
    policy = RetryPolicy(retries=10_000)

    delay = policy.delay_after(failures, jitter=jitter)

    assert delay is not None
    assert 0.5 <= delay <= policy.longest_delay
