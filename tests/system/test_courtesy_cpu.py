"""A host that stands back for other work on its machine, which needs its CPU."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager

import psutil
import pytest

from relayq import clock
from tests.conftest import missing
from tests.system.conftest import ROOT
from tests.system.test_courtesy import LOOKS, Counter, courtesy, started_again
from tests.waiting import until

pytestmark = pytest.mark.system

#: Makes the file `count` longer as fast as it can, until there is a file `enough`.
BURN = "while [ ! -e enough ]; do echo >> count; done"
#: Imported by a worker as it starts: of the machine's CPU just so much is used as a file says. So
#: it doesn't matter what goes on around a test, in CI and elsewhere.
PEACE = """
import os, sys
if "relayq.worker" in sys.orig_argv:
    from time import monotonic
    from relayq.host import usage
    state = [monotonic(), 0.0]
    def busy_seconds():
        with open(os.environ["CPUS_IN_USE"]) as file:
            share = float(file.read())
        at = monotonic()
        state[:] = at, state[1] + (at - state[0]) * share * os.cpu_count()
        return state[1]
    usage._busy_seconds = busy_seconds
"""


class Machine:
    """A machine on which others work when the test says so."""

    def __init__(self, folder) -> None:
        self._folder = folder
        (folder / "sitecustomize.py").write_text(PEACE)
        self._use(0.0)
        self.environ = {
            "RELAYQ_WORKER__CPU_THRESHOLD": "80",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "CPUS_IN_USE": str(folder / "share"),
        }

    def _use(self, share: float) -> None:
        draft = self._folder / "draft"
        draft.write_text(str(share))
        draft.replace(self._folder / "share")

    @contextmanager
    def in_use(self):
        """Others use all of it."""
        self._use(1.0)
        yield
        self._use(0.0)


@pytest.fixture
def machine(tmp_path_factory) -> Machine:
    """A machine that has nothing to do."""
    return Machine(tmp_path_factory.mktemp("machine"))


def spin() -> None:
    while True:
        pass


@contextmanager
def hogs():
    """Other work on this machine: two processes a core that want all of it."""
    context = multiprocessing.get_context("fork")
    busy = [context.Process(target=spin, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    for one in busy:
        one.start()
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.join()


def skip_on_a_busy_machine() -> None:
    """Skip where others need the machine all the time: its host would be right to stand back.

    What follows from it is tested all the same, on `Machine`.
    """
    until_quiet = clock.boottime() + 20
    while psutil.cpu_percent(1) > 60:
        if clock.boottime() > until_quiet:
            missing("this machine is busy", excused=True)


def test_it_freezes_its_job_while_others_need_the_machine_and_goes_on_after(
    idle_fleet, tmp_path, machine
):
    started_again(idle_fleet, **{**LOOKS, **machine.environ})
    job = Counter(idle_fleet, tmp_path)

    with machine.in_use():
        until(lambda: job.is_paused, within=15, what="the job to be frozen")
        waiting = idle_fleet.job.run("echo waited")
        assert job.stands_still_for(0.5)
        record = job.result.record
        assert "% of its CPU" in record.paused
        assert record.state == "running"
        assert courtesy(idle_fleet)["state"] == "frozen"
        assert waiting.state == "queued"

    until(lambda: not job.is_paused, within=15, what="the thaw")
    assert job.goes_on()
    assert waiting.get(30) == "waited"
    until(lambda: courtesy(idle_fleet).get("state") == "ok", within=5, what="its state")
    job.enough()
    assert job.result.wait(15).state == "succeeded"


def test_with_the_default_times_it_takes_nothing_new_then_freezes_and_thaws(
    idle_fleet, tmp_path, machine
):
    started_again(idle_fleet, **machine.environ)
    job = Counter(idle_fleet, tmp_path)

    with machine.in_use():
        until(lambda: job.is_paused, within=30, what="the job to be frozen")
        assert job.stands_still_for(0.5)
        waiting = idle_fleet.job.run("echo waited")
        assert courtesy(idle_fleet)["state"] == "frozen"
    words = [word for word in idle_fleet.log().split() if word in ("new", "frozen:", "froze")]
    assert words == ["new", "frozen:", "froze"]
    assert waiting.state == "queued"

    until(lambda: not job.is_paused, within=60, what="the thaw")
    assert waiting.get(30) == "waited"
    job.enough()
    assert job.result.wait(15).state == "succeeded"


def test_other_processes_are_those_others(idle_fleet, tmp_path):
    skip_on_a_busy_machine()
    started_again(idle_fleet, **LOOKS, RELAYQ_WORKER__CPU_THRESHOLD="80")
    job = Counter(idle_fleet, tmp_path)

    with hogs():
        until(lambda: job.is_paused, within=15, what="the job to be frozen")

    until(lambda: not job.is_paused or skip_on_a_busy_machine(), within=60, what="the thaw")
    job.enough()


def test_own_work_is_not_the_work_of_others(idle_fleet, tmp_path):
    started_again(idle_fleet, **LOOKS, RELAYQ_WORKER__CPU_THRESHOLD="90")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()

    jobs = [Counter(idle_fleet, folder, BURN) for folder in folders]

    end = clock.boottime() + 3
    until(
        lambda: any(job.is_paused for job in jobs) or clock.boottime() > end,
        within=10,
        what="the pause",
    )
    assert not any(job.is_paused for job in jobs)
    for job in jobs:
        job.enough()
