"""finish: an attempt ends once, by its token, and the job with it."""

import pytest

from relayq.model.jobs import JobState, Token
from relayq.model.moves import ENDS
from tests.redis.fleet import LEASE

FINAL_ENDS = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.NEEDS_HUMAN]


@pytest.mark.parametrize("state", FINAL_ENDS)
def test_an_attempt_ends_its_job(fleet, state):
    host = fleet.host()
    token = host.start(fleet.submit())

    assert host.finish(token, state, reason="exit") == state

    record = fleet.record(token.id)
    assert (record.state, record.reason, record.phase) == (state, "exit", None)
    assert record.finished_at == pytest.approx(fleet.now(), abs=5)
    assert host.register() == ("ok", [])


def test_the_record_keeps_exit_code_and_signal(fleet):
    host = fleet.host()
    exited, signalled = host.start(fleet.submit()), host.start(fleet.submit())

    host.finish(exited, JobState.FAILED, exit_code=3)
    host.finish(signalled, JobState.FAILED, reason="signal", signal=9)

    assert (fleet.record(exited.id).exit_code, fleet.record(exited.id).signal) == (3, None)
    assert (fleet.record(signalled.id).exit_code, fleet.record(signalled.id).signal) == (None, 9)


def test_an_ended_job_knows_how_long_its_attempt_took(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.clock.advance(40)

    host.finish(token)

    assert fleet.record(token.id).duration == pytest.approx(40, abs=2)


def test_the_signed_outcome_is_kept_and_wakes_who_waits(fleet, store):
    host = fleet.host()
    token = host.start(fleet.submit())

    host.finish(token, output=b"hello\n")

    signed = store.jobs.outcome(token.id)
    assert fleet.signer.check_outcome(signed, id=token.id).output == b"hello\n"
    assert fleet.pending_end(token.id) == {token.id: signed}


def test_a_big_outcome_is_kept_and_not_sent_twice(fleet, store):
    host = fleet.host()
    token = host.start(fleet.submit())

    host.finish(token, output=b"x" * 100_000)

    assert len(store.jobs.outcome(token.id)) > 100_000
    assert fleet.pending_end(token.id) == {token.id: None}


def test_an_attempt_cannot_end_as_running(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())

    for state in set(JobState) - ENDS:
        with pytest.raises(ValueError, match="can't end as"):
            host.finish(token, state)

    assert fleet.state(token.id) is JobState.RUNNING


def test_an_attempt_that_never_started_may_end_too(fleet):
    host = fleet.host()
    token = host.claim(fleet.submit())

    assert host.finish(token, JobState.FAILED, reason="refused") == "failed"
    assert fleet.record(token.id).reason == "refused"


# Its token


@pytest.mark.parametrize("state", sorted(ENDS))
def test_a_repeated_finish_is_answered_already(fleet, store, state):
    host = fleet.host()
    token = host.start(fleet.submit())
    host.finish(token, state)

    assert host.finish(token, state, output=b"again") == "already"

    assert fleet.state(token.id) is state
    outcome = fleet.signer.check_outcome(store.jobs.outcome(token.id), id=token.id)
    assert outcome.output == b""
    assert not store.connection.exists(fleet.key("late", token.id))


def test_a_repeated_finish_is_known_even_after_the_next_attempt_began(fleet, store):
    host = fleet.host()
    first = host.start(fleet.submit())
    host.finish(first, JobState.SCHEDULED, delay=1)
    fleet.clock.advance(2)
    fleet.tick()
    host.start(first.id)

    assert host.finish(first, JobState.SCHEDULED, delay=1) == "already"
    assert not store.connection.exists(fleet.key("late", first.id))


def test_a_host_that_lost_its_lease_cannot_overwrite_its_successor(fleet, store):
    old, new = fleet.host("pi4"), fleet.host("mini")
    lost = fleet.lose(old, fleet.submit())
    token = new.start(lost.id)

    assert old.finish(lost, JobState.FAILED, exit_code=1) == "stale"
    assert fleet.state(lost.id) is JobState.RUNNING
    assert new.finish(token, output=b"right") == "succeeded"
    assert old.finish(lost, JobState.FAILED, exit_code=1) == "stale"

    record = fleet.record(lost.id)
    assert (record.state, record.host, record.exit_code) == (JobState.SUCCEEDED, "mini", None)
    outcome = fleet.signer.check_outcome(store.jobs.outcome(lost.id), id=lost.id)
    assert outcome.output == b"right"


def test_a_late_outcome_is_kept_beside_the_record(fleet, store):
    host = fleet.host()
    lost = fleet.lose(host, fleet.submit())

    assert host.finish(lost, output=b"too late") == "stale"

    late = store.connection.get(fleet.key("late", lost.id))
    assert fleet.signer.check_outcome(late, id=lost.id).output == b"too late"
    assert fleet.state(lost.id) is JobState.QUEUED
    assert store.jobs.outcome(lost.id) is None


def test_another_uid_of_the_same_attempt_cannot_finish(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())

    assert host.finish(Token(token.id, token.attempt, "another uid")) == "stale"
    assert fleet.state(token.id) is JobState.RUNNING


def test_an_unknown_job_is_gone_and_nothing_is_kept_of_it(fleet, store):
    host = fleet.host()

    assert host.finish(Token("nosuchjob000", 1, "uid")) == "gone"
    assert not store.connection.exists(fleet.key("late", "nosuchjob000"))


@pytest.mark.parametrize("state", FINAL_ENDS)
def test_a_lost_job_may_still_end_before_its_verdict(fleet, state):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.expire()
    assert fleet.state(token.id) is JobState.LOST

    assert host.finish(token, state) == state

    assert fleet.judge() == []
    assert fleet.state(token.id) is state


def test_an_attempt_may_end_after_its_lease_as_long_as_nobody_noticed(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.clock.advance(LEASE * 10)

    assert host.finish(token) == "succeeded"


# A retry of its own


def test_a_failed_attempt_waits_for_its_retry(fleet):
    host = fleet.host()
    token = host.start(fleet.submit(retries=1))

    assert host.finish(token, JobState.SCHEDULED, exit_code=1, delay=30) == "scheduled"

    record = fleet.record(token.id)
    assert (record.state, record.reason) == (JobState.SCHEDULED, "exit")
    assert record.due_at == pytest.approx(fleet.now() + 30, abs=5)
    assert fleet.pending_end(token.id) == {}
    assert host.ask() == "none"


def test_the_retry_is_another_attempt_of_the_same_job(fleet):
    host = fleet.host()
    first = host.start(fleet.submit(retries=1))
    host.finish(first, JobState.SCHEDULED, exit_code=1, delay=30)
    fleet.clock.advance(31)
    fleet.tick()

    second = host.run(first.id)

    record = fleet.record(first.id)
    assert (second.attempt, record.state, record.exit_code) == (2, JobState.SUCCEEDED, None)
    assert record.due_at is None


def test_a_retry_that_is_lost_counts_as_lost_and_not_as_never_started(fleet):
    host = fleet.host()
    first = host.start(fleet.submit(retries=1))
    host.finish(first, JobState.SCHEDULED, delay=1)
    fleet.clock.advance(2)
    fleet.tick()
    host.start(first.id)

    fleet.expire()

    assert fleet.state(first.id) is JobState.LOST
