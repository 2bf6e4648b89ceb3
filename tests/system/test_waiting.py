"""Who waits for a job of a fleet that is gone: hears the verdict, and doesn't wait for ever."""

from __future__ import annotations

import signal

import pytest

from relayq.errors import JobFailed, NeedsHuman
from relayq.host.process import Shim, attempts
from relayq.model.jobs import JobState
from tests.system.commands import environ, relayq, submit
from tests.waiting import until

pytestmark = pytest.mark.system


def kill_everything(fleet, id):
    """Have nothing left of the host: neither its worker nor the job."""
    until(
        lambda: fleet.relay.session().store.jobs.fetch(id).phase == "started",
        within=15,
        what="the job to start",
    )
    fleet.end_worker(signal.SIGKILL)
    for one in attempts(fleet.config.spool):
        Shim(one).kill("cancel", 0.0)


@pytest.mark.parametrize(("on_lost", "error"), [("fail", JobFailed), ("ask", NeedsHuman)])
def test_a_waiting_client_hears_the_verdict_though_no_worker_is_left(fleet, on_lost, error):
    result = fleet.job.run("sleep 600", on_lost=on_lost)
    kill_everything(fleet, result.id)

    with pytest.raises(error):
        result.get(timeout=40)

    assert result.record.reason == "lost"


def wait(fleet, id):
    """Run `relayq wait` as on a machine that has no worker, and starts none."""
    elsewhere = {**environ(), "RELAYQ_BROKER__URL": fleet.broker.url}
    return relayq("wait", id, timeout=40, env=elsewhere)


def test_relayq_wait_hears_it_too(fleet):
    id = submit("--on-lost", "fail", "sleep 600")
    kill_everything(fleet, id)

    done = wait(fleet, id)

    assert done.returncode == 125
    assert "host was lost" in done.stderr


def test_a_waiting_client_prunes_nothing_whatever_its_configuration_says(fleet, monkeypatch):
    ended = fleet.job.run("true")
    ended.wait(20)
    monkeypatch.setenv("RELAYQ_DEFAULTS__KEEP_RESULTS", "0")
    lost = submit("--on-lost", "fail", "sleep 600")
    kill_everything(fleet, lost)

    assert wait(fleet, lost).returncode == 125

    assert ended.record.state is JobState.SUCCEEDED
    assert fleet.relay.session().store.jobs.fetch(ended.id)
