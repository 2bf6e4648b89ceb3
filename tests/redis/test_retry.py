"""retry and resolve: a person's word on a job that has ended or waits for one."""

import pytest

from relayq.errors import Conflict, NoSuchJob
from relayq.model.jobs import JobState
from tests.redis.scenes import reach

ENDED = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.NEEDS_HUMAN]
ALIVE = sorted(set(JobState) - set(ENDED))


@pytest.mark.parametrize("state", ENDED)
def test_an_ended_or_parked_job_is_queued_again(fleet, state):
    id = reach(fleet, state)

    assert fleet.retry(id) == ("queued", None)

    record = fleet.record(id)
    assert (record.state, record.reason, record.attempt) == (JobState.QUEUED, None, 1)
    assert fleet.nudges()[-1]["headers"]["id"] == id
    assert fleet.pending_end(id) == {}


@pytest.mark.parametrize("state", ALIVE)
def test_a_job_that_has_not_ended_cannot_be_retried(fleet, state):
    id = reach(fleet, state)

    assert fleet.retry(id) == ("unfit", state)
    assert fleet.state(id) is state


def test_the_retry_is_a_new_attempt_and_the_last_outcome_counts(fleet, store):
    host = fleet.host()
    id = fleet.submit()
    first = host.run(id, JobState.FAILED)
    fleet.retry(id)

    second = host.run(id)

    assert (first.attempt, second.attempt) == (1, 2)
    outcome = fleet.signer.check_outcome(store.jobs.outcome(id), id=id)
    assert (outcome.attempt, outcome.state) == (2, JobState.SUCCEEDED)
    assert id in fleet.pending_end(id)


def test_a_retry_clears_a_cancel(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.cancel(token.id)
    host.finish(token)

    fleet.retry(token.id)

    assert fleet.record(token.id).cancel_at is None
    assert host.run(token.id).attempt == 2
    assert fleet.state(token.id) is JobState.SUCCEEDED


def test_a_retry_clears_the_counts_and_the_end(fleet):
    host = fleet.host()
    id = fleet.submit(retries=1)
    fleet.lose(host, id)
    host.finish(host.start(id), JobState.SCHEDULED, delay=1)
    fleet.clock.advance(2)
    fleet.tick()
    host.finish(host.start(id), JobState.FAILED, exit_code=3)

    fleet.retry(id)

    record = fleet.record(id)
    assert (record.losses, record.exit_code, record.finished_at) == (0, None, None)
    assert host.ask().failures == 0


def test_a_retried_job_stands_behind_what_was_queued_before(fleet):
    host = fleet.host()
    id = fleet.submit()
    host.run(id)
    waiting = fleet.submit()

    fleet.retry(id)

    assert [host.claim().id, host.claim().id] == [waiting, id]


def test_after_a_retry_the_old_token_is_stale(fleet):
    host = fleet.host()
    old = host.run(fleet.submit(), JobState.FAILED)

    fleet.retry(old.id)

    assert host.beat(old) == ["stale"]
    assert host.finish(old) == "stale"
    assert fleet.state(old.id) is JobState.QUEUED


def test_the_dispatcher_says_why_a_retry_is_refused(fleet):
    orphan = fleet.lose(fleet.host(), fleet.submit(on_lost="ask")).id
    running = reach(fleet, JobState.RUNNING)

    with pytest.raises(Conflict, match="is running"):
        fleet.dispatcher.retry(running)
    with pytest.raises(Conflict, match="may still run on pi4") as refused:
        fleet.dispatcher.retry(orphan)
    fleet.dispatcher.retry(orphan, force=True)

    assert "--force" in refused.value.hint
    assert fleet.state(orphan) is JobState.QUEUED


def test_an_unknown_job_can_neither_be_retried_nor_resolved(fleet):
    with pytest.raises(NoSuchJob):
        fleet.retry("nosuchjob000")
    with pytest.raises(NoSuchJob):
        fleet.resolve("nosuchjob000", JobState.FAILED)


@pytest.mark.parametrize("answer", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_person_resolves_a_job_that_waits_for_one(fleet, answer):
    id = reach(fleet, JobState.NEEDS_HUMAN)

    assert fleet.resolve(id, answer, note="looked at it") == answer

    record = fleet.record(id)
    assert (record.state, record.reason, record.note) == (answer, "user", "looked at it")


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.NEEDS_HUMAN}))
def test_nothing_else_can_be_resolved(fleet, state):
    id = reach(fleet, state)

    assert fleet.resolve(id, JobState.SUCCEEDED) == state
    assert fleet.state(id) is state


def test_a_job_is_resolved_as_ended_only(fleet):
    id = reach(fleet, JobState.NEEDS_HUMAN)

    with pytest.raises(ValueError, match="can't resolve as queued"):
        fleet.resolve(id, JobState.QUEUED)
