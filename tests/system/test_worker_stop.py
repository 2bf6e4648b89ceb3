"""The three ways to stop a worker: leave its jobs to their shims, wait for them, give them back."""

from __future__ import annotations

import pytest

from relayq import embedded
from tests.waiting import until

pytestmark = pytest.mark.system

#: Says that it began, waits for leave to end, and counts its starts.
PATIENT = "echo $RELAYQ_ATTEMPT >> {0}/starts; while [ ! -e {0}/go ]; do sleep 0.05; done; echo end"


def begin(fleet, tmp_path, **options):
    """Start a job that waits for the file `go`."""
    result = fleet.job.run(PATIENT.format(tmp_path), **options)
    until((tmp_path / "starts").exists, within=15, what="the job to start")
    return result


def starts(tmp_path):
    return (tmp_path / "starts").read_text().split()


def ask(fleet, how):
    pid = embedded.ask_to_stop(fleet.config, how)
    assert pid == fleet.worker.pid


def ended(fleet):
    until(lambda: fleet.worker.poll() is not None, within=20, what="the worker to end")
    fleet.worker = None


def test_a_draining_worker_ends_after_its_jobs_and_takes_no_other(fleet, tmp_path):
    running = begin(fleet, tmp_path)
    ask(fleet, embedded.DRAIN)
    until(lambda: "stopping: drain" in fleet.log(), within=10, what="the worker to drain")
    later = fleet.job.run("echo later")
    assert fleet.worker.poll() is None

    (tmp_path / "go").touch()

    assert running.get(timeout=20) == "end"
    ended(fleet)
    assert later.state == "queued"
    assert starts(tmp_path) == ["1"]
    fleet.start_worker()
    assert later.get(timeout=20) == "later"


def test_a_draining_worker_that_is_asked_again_leaves_its_jobs(fleet, tmp_path):
    running = begin(fleet, tmp_path)
    ask(fleet, embedded.DRAIN)
    until(lambda: "stopping: drain" in fleet.log(), within=10, what="the worker to drain")

    assert embedded.stop_worker(fleet.config)

    ended(fleet)
    assert running.state == "running"
    fleet.start_worker()
    (tmp_path / "go").touch()
    assert running.get(timeout=20) == "end"
    assert starts(tmp_path) == ["1"]


def test_jobs_that_are_handed_back_begin_anew_uncounted(fleet, tmp_path):
    running = begin(fleet, tmp_path, on_lost="fail")

    ask(fleet, embedded.HAND_BACK)

    ended(fleet)
    record = running.record
    assert (record.state, record.losses) == ("queued", 0)
    fleet.start_worker()
    (tmp_path / "go").touch()
    assert running.get(timeout=20) == "end"
    assert starts(tmp_path) == ["1", "2"]


def test_a_cancel_wins_against_a_hand_back(fleet, tmp_path):
    running = fleet.job.run(f"trap '' TERM; {PATIENT.format(tmp_path)}")
    until((tmp_path / "starts").exists, within=15, what="the job to start")
    ask(fleet, embedded.HAND_BACK)
    until(lambda: "stopping: hand_back" in fleet.log(), within=10, what="the worker to hand back")

    running.cancel()

    ended(fleet)
    assert running.wait(timeout=20).state == "cancelled"
    assert starts(tmp_path) == ["1"]


def test_what_was_handed_back_without_a_broker_is_queued_by_the_next_worker(fleet, tmp_path):
    running = begin(fleet, tmp_path)
    embedded.stop_broker(fleet.config)

    ask(fleet, embedded.HAND_BACK)

    ended(fleet)
    (tmp_path / "go").touch()
    fleet.broker = embedded.start_broker(fleet.config)
    fleet.start_worker()
    assert running.get(timeout=30) == "end"
    assert starts(tmp_path) == ["1", "2"]
