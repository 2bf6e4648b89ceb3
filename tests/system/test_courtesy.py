"""A host that stands back: for other work on its machine, and when a person says so."""

from __future__ import annotations

import json
import os
import signal

import pytest

from relayq import clock
from relayq.errors import Conflict
from relayq.host.awake import holding_argv
from tests.system.commands import begun, relayq, shown, submit
from tests.waiting import until

pytestmark = pytest.mark.system

#: A tenth of the real times, and less.
LOOKS = {
    "RELAYQ_WORKER__PAUSE__LOOK": "0.2",
    "RELAYQ_WORKER__PAUSE__RESUME_AFTER": "1",
    "RELAYQ_WORKER__PAUSE__RESUME_BELOW": "95",
}
#: Makes the file `count` longer, nearly idle, until there is a file `enough`.
STROLL = "while [ ! -e enough ]; do echo >> count; sleep 0.02; done"


class Counter:
    """A job that counts as long as it runs."""

    def __init__(self, fleet, folder, script=STROLL, **options):
        self.folder = folder
        self.result = fleet.job.run(script, cwd=str(folder), **options)
        until(lambda: self.count > 0, within=15, what="the job to count")

    @property
    def count(self) -> int:
        try:
            return (self.folder / "count").stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def is_paused(self) -> bool:
        return self.result.record.paused is not None

    def goes_on(self) -> bool:
        before = self.count
        return bool(until(lambda: self.count > before, within=15, what="the job to go on"))

    def stands_still_for(self, seconds: float) -> bool:
        # The record may say so some milliseconds before the signal arrives.
        until(self._rests, within=2, what="the job to stand still")
        before, end = self.count, clock.boottime() + seconds
        until(lambda: clock.boottime() > end, within=seconds + 5, what="time to pass")
        return self.count == before > 0

    def _rests(self) -> bool:
        before = self.count
        clock.sleep(0.1)
        return self.count == before

    def enough(self) -> None:
        (self.folder / "enough").touch()


def courtesy(fleet) -> dict:
    [host] = fleet.relay.session().store.hosts.list(online_within=60)
    return dict(host.facts.get("courtesy") or {})


def started_again(fleet, **environ: str) -> None:
    fleet.end_worker()
    fleet.start_worker(**environ)


def test_a_paused_job_makes_no_progress_and_its_limit_stands_still(mended_fleet, tmp_path):
    job = Counter(mended_fleet, tmp_path, timeout=3.0)

    job.result.pause(reason="a film")
    until(lambda: job.is_paused, within=5, what="the job to be frozen")

    # Longer than its limit, and than its lease.
    assert job.stands_still_for(mended_fleet.config.lease.length + 1)
    record = job.result.record
    assert record.state == "running"
    assert record.paused.endswith(": a film")
    assert record.attempt == 1

    job.result.resume()
    assert job.goes_on()
    ended = job.result.wait(15)
    assert ended.reason == "timeout"
    assert ended.paused is None
    assert 3.0 <= job.result.outcome().run_time < 5.5


def test_a_pause_may_be_for_a_while(mended_fleet, tmp_path):
    job = Counter(mended_fleet, tmp_path)

    job.result.pause("2s")
    until(lambda: job.is_paused, within=5, what="the pause")

    until(lambda: not job.is_paused, within=6, what="the pause to end")
    assert job.goes_on()
    job.enough()


def test_a_paused_job_can_be_cancelled(mended_fleet, tmp_path):
    job = Counter(mended_fleet, tmp_path)
    job.result.pause()
    until(lambda: job.is_paused, within=5, what="the pause")

    job.result.cancel()

    assert job.result.wait(10).state == "cancelled"


def test_a_host_that_is_paused_takes_nothing_new_and_freezes_what_it_runs(mended_fleet, tmp_path):
    job = Counter(mended_fleet, tmp_path)

    assert mended_fleet.job.pause_host("here", reason="a film") == ["here"]
    until(lambda: job.is_paused, within=5, what="the pause")
    waiting = mended_fleet.job.run("echo waited")

    assert job.stands_still_for(2.5)  # two pulls
    assert waiting.state == "queued"
    assert courtesy(mended_fleet)["state"] == "paused"
    mended_fleet.job.resume_host("here")
    assert waiting.get(10) == "waited"
    assert job.goes_on()
    with pytest.raises(Conflict, match="nobody paused here"):
        mended_fleet.job.resume_host("here")
    job.enough()


def test_a_pause_of_the_fleet_is_obeyed_by_a_host_that_was_away(mended_fleet):
    mended_fleet.end_worker()
    mended_fleet.job.pause_fleet()
    waiting = mended_fleet.job.run("echo waited")
    mended_fleet.start_worker()

    until(lambda: courtesy(mended_fleet).get("state") == "paused", within=10, what="the pause")
    end = clock.boottime() + 2
    until(lambda: clock.boottime() > end, what="time to pass")
    assert waiting.state == "queued"

    mended_fleet.job.resume_fleet()
    assert waiting.get(10) == "waited"


def test_a_paused_job_stays_so_when_its_worker_dies(mended_fleet, tmp_path):
    job = Counter(mended_fleet, tmp_path)
    job.result.pause()
    until(lambda: job.is_paused, within=5, what="the pause")

    mended_fleet.end_worker(signal.SIGKILL)
    mended_fleet.start_worker()

    assert job.stands_still_for(2)
    assert job.is_paused
    job.result.resume()
    assert job.goes_on()
    job.enough()
    assert job.result.wait(10).state == "succeeded"


def test_jobs_that_were_frozen_for_the_owner_go_on_under_a_worker_that_sees_nothing(
    idle_fleet, tmp_path
):
    gate = tmp_path / "open"
    started_again(idle_fleet, **LOOKS, RELAYQ_WORKER__PAUSE__GATE=f"test -e {gate}")
    until(lambda: courtesy(idle_fleet).get("state") == "no_new_work", within=10, what="its state")
    gate.touch()
    job = Counter(idle_fleet, tmp_path)
    gate.unlink()
    until(lambda: job.is_paused, within=10, what="the pause")
    assert "its gate says no (exit 1)" in job.result.record.paused

    gate.touch()
    idle_fleet.end_worker(signal.SIGKILL)
    idle_fleet.start_worker(**LOOKS)

    assert job.goes_on()
    job.enough()


class Gate:
    """A gate that the test opens and closes: the owner's, of a worker started again with it."""

    def __init__(self, fleet, folder) -> None:
        self._file = folder / "open"
        self.open()
        asks = {"LOOK": "0.1", "GATE": f"test -e {self._file}"}
        named = {f"RELAYQ_WORKER__PAUSE__{name}": value for name, value in asks.items()}
        self.environ = {**LOOKS, **named}
        started_again(fleet, **self.environ)

    def open(self) -> None:
        self._file.touch()

    def close(self) -> None:
        self._file.unlink()


def test_what_both_the_owner_and_a_person_stopped_goes_on_when_both_let_it(idle_fleet, tmp_path):
    gate = Gate(idle_fleet, tmp_path)
    job = Counter(idle_fleet, tmp_path)
    gate.close()
    until(lambda: job.is_paused, within=15, what="the owner's freeze")

    job.result.pause(reason="a film")
    until(lambda: job.result.record.paused.endswith("a film"), within=5, what="the person's pause")
    gate.open()
    until(lambda: courtesy(idle_fleet).get("state") == "ok", within=15, what="the host to go on")
    assert job.stands_still_for(1)
    assert job.is_paused

    gate.close()
    until(
        lambda: courtesy(idle_fleet).get("state") == "frozen",
        within=15,
        what="the owner to come back",
    )
    job.result.resume()
    until(lambda: "gate says no" in (job.result.record.paused or ""), within=3, what="the reason")
    assert job.stands_still_for(1)

    gate.open()
    assert job.goes_on()
    job.enough()


def test_a_job_frozen_for_the_owner_stays_so_when_its_worker_dies(idle_fleet, tmp_path):
    gate = Gate(idle_fleet, tmp_path)
    job = Counter(idle_fleet, tmp_path)
    gate.close()
    until(lambda: job.is_paused and job._rests(), within=15, what="the freeze")
    before = job.count

    idle_fleet.end_worker(signal.SIGKILL)
    idle_fleet.start_worker(**gate.environ)

    until(lambda: courtesy(idle_fleet).get("state") == "frozen", within=10, what="its state")
    assert job.stands_still_for(1)
    assert job.count == before  # not even for the moment that its new worker needed
    waiting = idle_fleet.job.run("echo waited")
    gate.open()
    assert waiting.get(20) == "waited"
    assert job.goes_on()
    job.enough()


def test_a_job_frozen_for_the_owner_can_be_cancelled_and_its_host_handed_over(idle_fleet, tmp_path):
    gate = Gate(idle_fleet, tmp_path)
    job = Counter(idle_fleet, tmp_path)
    gate.close()
    until(lambda: job.is_paused, within=15, what="the freeze")
    id = job.result.id
    assert "its gate says no" in relayq("ps").stdout
    assert "its gate says no" in relayq("show", id).stdout
    assert "stand still: its gate says no" in relayq("why", id).stdout
    assert "its gate says no" in relayq("status").stdout

    job.result.cancel()

    ended = job.result.wait(10)
    assert (ended.state, ended.paused) == ("cancelled", None)


def test_without_a_permit_a_thaw_is_none(mended_fleet, tmp_path):
    job = Counter(mended_fleet, tmp_path)
    job.result.pause("2s")
    until(lambda: job.is_paused, within=5, what="the pause")

    # Its pause ends while nobody renews the permit; its own worker would park it for long.
    mended_fleet.end_worker(signal.SIGKILL)
    end = clock.boottime() + mended_fleet.config.lease.permit
    until(lambda: clock.boottime() > end, within=10, what="the permit to end")
    assert job.stands_still_for(1)

    mended_fleet.start_worker()
    assert job.goes_on()
    job.enough()


def test_a_worker_begins_with_a_look_at_its_machine(fleet, tmp_path):
    fleet.end_worker()
    waiting = fleet.job.run("echo waited")

    slow = f"sleep 1; test -e {tmp_path / 'open'}"
    fleet.start_worker(**LOOKS, RELAYQ_WORKER__PAUSE__GATE=slow)
    closed = ("no_new_work", "frozen")
    until(lambda: courtesy(fleet).get("state") in closed, within=10, what="its state")

    assert waiting.state == "queued"
    (tmp_path / "open").touch()
    assert waiting.get(20) == "waited"


def test_a_machine_that_goes_to_sleep_takes_nothing_new_until_it_wakes(idle_fleet, tmp_path):
    signals, held = tmp_path / "signals", tmp_path / "held"
    for name, script in {
        "gdbus": f"exec tail -n +1 -f {signals}",
        "systemd-inhibit": f'case "$*" in *delay*) touch {held}; cat; rm {held};; esac',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    said = "/org/freedesktop/login1: org.freedesktop.login1.Manager.PrepareForSleep ({},)\n"
    signals.touch()
    started_again(idle_fleet, PATH=f"{tmp_path}:{os.environ['PATH']}")
    until(held.exists, within=5, what="its sleep to be delayed")

    signals.write_text(said.format("true"))
    until(
        lambda: courtesy(idle_fleet).get("state") == "no_new_work", within=5, what="its good night"
    )
    assert courtesy(idle_fleet)["reason"] == "the machine goes to sleep"
    until(lambda: not held.exists(), within=5, what="it to be let go")
    waiting = idle_fleet.job.run("echo waited")
    assert "the machine goes to sleep" in relayq("status").stdout
    assert waiting.state == "queued"

    with signals.open("a") as file:
        file.write(said.format("false"))
    assert waiting.get(15) == "waited"
    until(held.exists, within=5, what="its next sleep to be delayed")
    idle_fleet.end_worker(signal.SIGKILL)
    until(lambda: not held.exists(), within=5, what="nothing to be left of its worker")


def test_a_worker_may_ignore_that_its_machine_sleeps(idle_fleet, tmp_path):
    asked = tmp_path / "asked"
    (tmp_path / "gdbus").write_text(f"#!/bin/sh\ntouch {asked}\n")
    (tmp_path / "gdbus").chmod(0o755)

    started_again(
        idle_fleet, PATH=f"{tmp_path}:{os.environ['PATH']}", RELAYQ_WORKER__DRAIN_ON_SLEEP="no"
    )

    assert idle_fleet.job.run("echo hi").get(15) == "hi"
    assert not asked.exists()


def test_what_holds_the_machine_awake_ends_with_the_last_job(idle_fleet, tmp_path):
    tool, held = tmp_path / "systemd-inhibit", tmp_path / "held"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *block*) echo > {held}; cat; rm {held};; esac\n')
    tool.chmod(0o755)
    started_again(idle_fleet, **LOOKS, PATH=f"{tmp_path}:{os.environ['PATH']}")

    job = Counter(idle_fleet, tmp_path)
    until(held.exists, within=5, what="something to keep the machine awake")
    job.enough()

    until(lambda: not held.exists(), within=10, what="the machine to be let go")


def test_keeping_awake_needs_no_tool(mended_fleet, tmp_path):
    assert holding_argv("linux", lambda name: None) is None

    job = Counter(mended_fleet, tmp_path)

    job.enough()
    assert job.result.wait(10).state == "succeeded"


# At the command line


def test_the_commands_pause_and_resume_and_everybody_says_so(mended_fleet, tmp_path):
    id = submit("sleep 300")
    begun(id)

    paused = relayq("pause", id, "--for", "1h", "--reason", "a film")

    assert (paused.returncode, paused.stdout) == (0, f"{id}  paused for 1h00m on here\n")
    assert shown(id)["paused"].endswith("a film")
    assert shown(id)["paused_at"] is not None
    listed = relayq("ps").stdout
    assert "paused" in listed
    assert "a film" in listed
    assert "time limit stands still" in relayq("show", id).stdout
    why = relayq("why", id).stdout
    assert "stands still" in why
    assert f"relayq resume {id}" in why
    resumed = relayq("resume", id, "--json")
    [job] = json.loads(resumed.stdout)["jobs"]
    assert job["paused"] is None
    events = relayq("events", "--job", id).stdout
    assert [word for word in ("paused", "frozen", "thawed", "resumed") if word in events] == [
        "paused",
        "frozen",
        "thawed",
        "resumed",
    ]
    again = relayq("resume", id)
    assert (again.returncode, again.stderr.splitlines()[0]) == (
        125,
        f"relayq: {id} isn't paused",
    )
    assert relayq("cancel", id).returncode == 0


def test_hosts_and_the_fleet_are_paused_by_command(mended_fleet):
    assert relayq("pause", "--host", "here").stdout == "here  paused\n"
    assert relayq("resume", "--host", "here").stdout == "here  resumed\n"
    assert relayq("pause", "--all", "--json").stdout == '{"schema": 1, "hosts": ["here"]}\n'
    waiting = submit("echo hi")
    refused = relayq("pause", waiting)
    assert "only a running job can be paused" in refused.stderr
    assert relayq("resume", "--all").stdout == "the fleet, 1 host  resumed\n"
    assert relayq("wait", waiting).returncode == 0
    assert relayq("pause").returncode == 2
    assert relayq("pause", "--host", "nobody").returncode == 125
    assert "nobody paused the fleet" in relayq("resume", "--all").stderr
