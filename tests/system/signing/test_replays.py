"""What was signed once, sent again by somebody who can write to the broker."""

from __future__ import annotations

import pytest

from relayq import embedded
from relayq.dispatch import TEMPLATE
from relayq.model.jobs import JobState
from relayq.store import connect
from relayq.store.jobs import Submission

pytestmark = pytest.mark.system


@pytest.fixture
def thief(shared_fleet):
    """What a worker's credential can do, without the fleet's key."""
    store = connect(embedded.broker_url(shared_fleet.config))
    yield store
    store.close()


def ran(path):
    return path.read_text().count("x")


def test_a_job_that_ended_runs_again_only_by_a_persons_word(shared_fleet, thief, tmp_path):
    log = tmp_path / "log"
    job = shared_fleet.job.run(f"echo x >> {log}; echo said")
    job.wait(20)
    signed = thief.jobs.signed_spec(job.id)

    # As `relayq retry` asks for it, but for what a person signs.
    assert thief.jobs.retry(job.id, template=TEMPLATE) == ("queued", None)
    told = shared_fleet.job.fetch(job.id)
    assert (told.wait(20).state, told.record.attempt) == (JobState.SUCCEEDED, 2)
    assert told.get() == job.get() == "said"

    # Forgotten, and put there anew.
    thief.jobs.forget([job.id])
    spec = told.record.spec
    key_id = thief.key_id()
    thief.jobs.submit([Submission(spec, signed)], template=TEMPLATE, key_id=key_id)
    assert shared_fleet.job.fetch(job.id).wait(20).state is JobState.SUCCEEDED
    assert ran(log) == 1

    again = shared_fleet.job.fetch(job.id)
    again.retry()
    assert (again.wait(20).state, ran(log)) == (JobState.SUCCEEDED, 2)

    # That word was for once.
    thief.jobs.retry(job.id, template=TEMPLATE, consent=thief.jobs.consent(job.id) or b"")
    assert (shared_fleet.job.fetch(job.id).wait(20).reason, ran(log)) == ("exit", 2)


def test_its_own_retries_and_a_rerun_need_no_further_word(shared_fleet, tmp_path):
    log = tmp_path / "log"
    job = shared_fleet.job.run(f"echo x >> {log}; exit 1", retries=1, backoff="0.1s..0.1s")
    assert (job.wait(20).state, ran(log)) == (JobState.FAILED, 2)

    job.retry()
    assert (shared_fleet.job.fetch(job.id).wait(20).state, ran(log)) == (JobState.FAILED, 4)
