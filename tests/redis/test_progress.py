"""progress: what a running job says of how far it is, as long as it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.model.jobs import JobState
from relayq.model.progress import Progress

HALF = Progress(0.5, "second pass", eta=90.0, rate="2.4x")


@pytest.fixture
def host(fleet):
    return fleet.host()


@pytest.fixture
def token(fleet, host):
    return host.start(fleet.submit())


def note(fleet, token, progress=HALF):
    return fleet.store.progress.note(token, progress)


def noted(fleet, token):
    return fleet.record(token.id).progress


def test_a_running_job_has_what_it_said_last_with_the_brokers_instant(fleet, token):
    assert noted(fleet, token) is None

    assert note(fleet, token, Progress(0.1)) == "noted"
    assert note(fleet, token, replace(HALF, at=7.0)) == "noted"

    said = noted(fleet, token)
    assert replace(said, at=0.0) == HALF
    assert said.at == pytest.approx(fleet.now(), abs=5)


def test_a_job_takes_back_what_it_said(fleet, token):
    note(fleet, token)

    assert note(fleet, token, Progress(None)) == "noted"

    assert noted(fleet, token) is None


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED, JobState.NEEDS_HUMAN])
def test_an_ended_job_has_none(fleet, host, token, end):
    note(fleet, token)

    host.finish(token, end)

    assert noted(fleet, token) is None
    assert note(fleet, token) == "stale"
    assert noted(fleet, token) is None


def test_what_a_lost_attempt_says_is_kept_until_the_verdict(fleet, host, token):
    note(fleet, token)
    fleet.expire()
    assert fleet.state(token.id) is JobState.LOST
    assert note(fleet, token, Progress(0.75)) == "noted"
    assert noted(fleet, token).fraction == 0.75

    fleet.judge()

    assert noted(fleet, token) is None


def test_an_attempt_that_lost_its_job_cant_speak_for_the_next_one(fleet, host):
    first = fleet.lose(host, fleet.submit())
    second = host.start(first.id)
    note(fleet, second, Progress(0.1))

    assert note(fleet, first) == "stale"
    assert noted(fleet, second).fraction == 0.1


def test_an_attempt_that_is_given_back_leaves_none(fleet, host, token):
    note(fleet, token)

    host.release(token)

    assert noted(fleet, token) is None


def test_a_glance_at_many_jobs_tells_of_those_that_there_are(fleet, host, token):
    note(fleet, token)
    waiting = fleet.submit()

    seen = fleet.store.progress.look([token.id, "nothing", waiting])

    assert set(seen) == {token.id, waiting}
    running = seen[token.id]
    assert (running.state, running.host) == (JobState.RUNNING, "pi4")
    assert running.began_at == pytest.approx(fleet.now(), abs=5)
    assert running.progress.fraction == 0.5
    assert (seen[waiting].state, seen[waiting].host, seen[waiting].progress) == (
        JobState.QUEUED,
        None,
        None,
    )
    assert fleet.store.progress.look([]) == {}
