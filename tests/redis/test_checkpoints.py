"""checkpoint: what a job leaves for its next attempt, by the attempt that holds the lease only."""

from __future__ import annotations

import pytest

from relayq.model.jobs import JobState


@pytest.fixture
def host(fleet):
    return fleet.host()


@pytest.fixture
def token(fleet, host):
    return host.start(fleet.submit())


@pytest.fixture
def kept(store):
    return store.checkpoints


def test_the_last_one_is_kept_byte_by_byte(kept, token):
    assert kept.of(token.id) is None

    assert kept.keep(token, b"1") == "kept"
    assert kept.keep(token, b"2\x00\xff\n") == "kept"

    assert kept.of(token.id) == b"2\x00\xff\n"


def test_an_empty_one_takes_back_what_was_left(kept, token):
    kept.keep(token, b"1")

    assert kept.keep(token, b"") == "kept"

    assert kept.of(token.id) is None


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED, JobState.NEEDS_HUMAN])
def test_it_outlives_an_end_that_is_no_success_and_a_persons_retry(fleet, host, kept, token, end):
    kept.keep(token, b"1")
    host.finish(token, end)
    assert kept.keep(token, b"2") == "stale"

    fleet.retry(token.id)

    assert kept.of(token.id) == b"1"


@pytest.mark.parametrize("resolved", [False, True])
def test_a_success_lets_it_go(fleet, host, kept, token, resolved):
    kept.keep(token, b"1")
    host.finish(token, JobState.NEEDS_HUMAN if resolved else JobState.SUCCEEDED)
    if resolved:
        fleet.resolve(token.id, JobState.SUCCEEDED)

    assert kept.of(token.id) is None


def test_an_attempt_that_lost_its_job_cant_overwrite_what_the_next_one_left(fleet, host, kept):
    first = host.start(fleet.submit())
    kept.keep(first, b"1")
    fleet.expire()
    # Until the verdict nobody else has it.
    assert kept.keep(first, b"2") == "kept"
    fleet.judge()
    assert kept.of(first.id) == b"2"
    second = host.start(first.id)
    kept.keep(second, b"3")

    assert kept.keep(first, b"late") == "stale"

    assert kept.of(first.id) == b"3"


def test_one_that_is_given_back_leaves_it(host, kept, token):
    kept.keep(token, b"1")

    host.release(token)

    assert kept.of(token.id) == b"1"


def test_it_is_forgotten_with_its_job(store, host, kept, token):
    kept.keep(token, b"1")
    host.finish(token, JobState.FAILED)

    assert store.jobs.forget([token.id]) == ["forgotten"]

    assert kept.of(token.id) is None
    assert kept.keep(token, b"2") == "stale"
