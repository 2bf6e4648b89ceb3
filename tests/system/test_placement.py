"""Two workers on one broker: who takes a job that not every host may take, and when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from relayq import config
from relayq.errors import JobFailed, RelayqError, Unplaceable
from tests.probing import remember
from tests.system.commands import relayq
from tests.waiting import until

pytestmark = pytest.mark.system

#: How long a job may take to start on an idle host: a second, and this machine's other load.
AT_ONCE = 4.0


class Second:
    """A further host of a fleet, with a home of its own."""

    def __init__(self, fleet, name: str, section: str) -> None:
        self.home = fleet.home.parent / f"home-of-{name}"
        self.home.mkdir(mode=0o700)
        remember(self.home)
        shutil.copy2(config.load().fleet_key_path, self.home / "fleet.key")
        self.name, self.fleet = name, fleet
        (self.home / "config.yml").write_text(
            f"broker: {{url: '{fleet.broker.url}'}}\nworker: {{name: {name}, {section}}}\n"
        )
        environ = {k: v for k, v in fleet.environ.items() if k != "RELAYQ_WORKER__NAME"}
        self.log = (self.home / "test-worker.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relayq.worker"],
            cwd="/",
            env={**environ, "RELAYQ_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        until(lambda: name in online(fleet), within=20, what=f"{name} to register")

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.log.close()


def online(fleet) -> set[str]:
    hosts = fleet.relay.session().store.hosts.list(online_within=fleet.config.lease.length)
    return {host.name for host in hosts if host.is_online}


@pytest.fixture(scope="module")
def pair(shared_fleet):
    """The fleet's host `here`, and `there`, which has ffmpeg, a label and two cuda slots."""
    section = (
        "labels: [heavy], capabilities: [tape], aliases: [yonder], resources: {cuda: 2}, "
        "max_concurrent: 3, priority: normal, cpu_threshold: 100"
    )
    there = Second(shared_fleet, "there", section)
    try:
        yield shared_fleet
    finally:
        there.close()


@pytest.mark.parametrize(
    "asked",
    [
        {"needs": "tape"},
        {"on": "@heavy"},
        {"on": "th*"},
        {"on": "yonder"},
        {"host": "yonder"},
        {"excluded": "here"},
        {"resources": {"cuda": 1}},
        {"prefer": "there"},
        {"memory": "64MB", "needs": "tape"},
    ],
    ids=str,
)
def test_a_job_starts_at_once_on_an_idle_host_that_fits(pair, asked):
    result = pair.job.run("true", **asked)

    result.wait(timeout=20)

    record = result.record
    assert record.host == "there"
    assert record.started_at - record.created_at < AT_ONCE


def test_what_no_host_can_is_refused_with_what_each_lacks(pair):
    with pytest.raises(Unplaceable) as caught:
        pair.job.run("true", needs="moonbase,tape")

    assert set(caught.value.missing) == {"here", "there"}
    assert caught.value.missing["there"] == ["lacks moonbase"]


def test_what_no_host_can_waits_if_that_was_asked(pair):
    result = pair.job.run("true", needs="moonbase", wait_for_host=True)

    assert result.state == "queued"
    result.move("any")
    result.wait(timeout=20)


def test_a_job_runs_on_the_host_of_another_one(pair):
    for host in ("here", "there"):
        first = pair.job.run("true", host=host)

        beside = pair.job.run("true", with_job=first)
        beside.wait(timeout=20)

        assert beside.host == host


def test_jobs_share_a_hosts_slots_of_a_name_and_no_more(pair, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    count = f"touch {marks}/$$; ls {marks} | wc -l; sleep 0.4; rm {marks}/$$"

    results = [pair.job.run(count, resources={"cuda": 1}) for _ in range(6)]

    assert max(int(result.get(timeout=40)) for result in results) <= 2


def test_a_slot_that_is_freed_is_taken_at_once(pair):
    holder = pair.job.run("sleep 1", resources={"cuda": 2})
    waiting = pair.job.run("true", resources={"cuda": 1})

    holder.wait(timeout=20)
    waiting.wait(timeout=20)

    assert waiting.record.started_at >= holder.record.finished_at - 0.5
    assert waiting.record.started_at - holder.record.finished_at < AT_ONCE


def test_no_job_sits_at_a_busy_host_while_another_is_idle(pair):
    busy = [pair.job.run("sleep 30", host="here") for _ in range(2)]
    until(lambda: all(one.state == "running" for one in busy), within=15, what="here to be busy")
    try:
        for _ in range(5):
            result = pair.job.run("true")

            result.wait(timeout=20)

            assert result.host == "there"
            assert result.record.started_at - result.record.created_at < AT_ONCE
    finally:
        for one in busy:
            one.cancel()
            one.wait(timeout=20)


def test_a_job_overflows_from_a_busy_host_that_it_prefers(pair):
    busy = [pair.job.run("sleep 30", host="here") for _ in range(2)]
    until(lambda: all(one.state == "running" for one in busy), within=15, what="here to be busy")
    try:
        result = pair.job.run("true", prefer="here", overflow=1.5)
        assert result.record.overflow_at is not None

        result.wait(timeout=20)

        assert result.host == "there"
        assert 1.4 < result.record.started_at - result.record.created_at < 1.5 + AT_ONCE
    finally:
        for one in busy:
            one.cancel()
            one.wait(timeout=20)


def test_a_job_that_nobody_takes_in_time_fails(pair):
    result = pair.job.run("true", needs="moonbase", wait_for_host=True, expires=0.5)

    with pytest.raises(JobFailed):
        result.get(timeout=20)

    assert result.reason == "expired"


def test_a_broadcast_is_one_job_a_host(pair):
    results = pair.job.broadcast("echo $RELAYQ_JOB_ID")

    for result in results:
        assert result.get(timeout=20) == result.id
    assert [result.host for result in results] == ["here", "there"]


def test_round_robin_takes_the_hosts_in_turn(pair):
    results = [pair.job.run("true", strategy="round-robin") for _ in range(4)]

    for result in results:
        result.wait(timeout=20)

    assert sorted(result.host for result in results) == ["here", "here", "there", "there"]


def test_run_on_all_prints_a_table(pair):
    ran = subprocess.run(
        [sys.executable, "-m", "relayq", "run", "--on", "all", "echo hi; exit 3"],
        env={**os.environ, **pair.environ},
        capture_output=True,
        text=True,
        timeout=60,
    )

    rows = [line.split() for line in ran.stdout.splitlines()[1:]]
    assert ran.returncode == 3
    assert [(row[0], row[2], row[3], row[-1]) for row in rows] == [
        ("here", "failed", "3", "hi"),
        ("there", "failed", "3", "hi"),
    ]


@pytest.mark.parametrize("asked", [["--needs", "kind:run_command,git"], ["--on", "all"]], ids=str)
def test_the_first_command_on_a_machine_may_ask_something_of_it(asked, home):
    ran = relayq("run", *asked, "echo hi")

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == "hi"


def test_a_job_that_cant_share_a_host_is_refused(pair):
    leader = pair.job.run("true", host="here").wait(timeout=20)

    with pytest.raises(Unplaceable, match="here lacks tape"):
        pair.job.run("true", with_job=leader.id, needs="tape")
    with pytest.raises(RelayqError, match="a with_job or a host"):
        pair.job.run("true", with_job=leader.id, host="there")
    waits = pair.job.run("true", with_job=leader.id, needs="tape", wait_for_host=True)
    waits.cancel()
