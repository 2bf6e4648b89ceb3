"""What a Python program sees of the fleet."""

from __future__ import annotations

import pytest

from relayq.errors import RelayqError, Unplaceable
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def job(shared_fleet):
    """The client of a fleet of one host, called here."""
    return shared_fleet.relay.job


def test_hosts_are_found_by_what_they_can_do(job):
    assert [host.name for host in job.hosts(online=True)] == ["here"]
    assert job.hosts(online=False) == []
    assert [host.name for host in job.hosts(needs="kind:run_command")] == ["here"]
    assert job.hosts(needs=["a-unicorn"]) == []


def test_a_host_is_picked_as_a_job_would_be_placed(job):
    assert job.pick_host() == "here"
    assert job.pick_host(needs="kind:run_command", strategy="round-robin") == "here"
    with pytest.raises(Unplaceable, match="here lacks a-unicorn"):
        job.pick_host(needs="a-unicorn")
    with pytest.raises(RelayqError, match="no such strategy"):
        job.pick_host(strategy="best")


def test_no_host_is_picked_while_none_takes_work(job, shared_fleet):
    hosts = shared_fleet.relay.session().store.hosts
    hosts.drain("here")
    try:
        assert job.pick_host() is None
    finally:
        hosts.drain("here", undo=True)


def test_health_tells_who_is_busy(job):
    running = job.run("sleep 60")
    until(lambda: running.record.phase == "started", within=20, what="the job to start")

    health = job.health()

    assert (health["busy_workers"], health["idle_workers"]) == (1, 0)
    assert health["running_jobs"] == 1
    assert health["avg_load_factor"] == pytest.approx(1 / health["slots"])
    running.cancel()
    running.wait(20)
    assert job.health()["running_jobs"] == 0


def test_stats_count_what_was_done(job):
    before = job.stats(by="kind", days=1).get("run_command")
    job.run("true").wait(20)

    tally = job.stats(by="kind", days=1)["run_command"]

    assert tally.succeeded == (before.succeeded if before else 0) + 1
    assert 0 < tally.success_rate <= 1
    assert job.stats(days=1)["here"].succeeded >= 1
    assert [one.succeeded for one in job.stats(by="day", days=1).values()] == [tally.succeeded]
    with pytest.raises(RelayqError, match="not by 'week'"):
        job.stats(by="week")
