"""What a service manager starts: it says when it is ready, takes over, and ends as was asked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relayq import config as configuration
from relayq import embedded
from relayq.embedded import managed
from relayq.model.units import STOPPED, Role
from tests.system.commands import ROOT, argv, begun, environ, relayq, shown, submit
from tests.waiting import until

pytestmark = pytest.mark.system


class Manager:
    """A service manager's ear, and what it started."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(path)
        self.channel.settimeout(0.5)
        self.log = Path(f"{path}.log")
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        env = {**environ(), "NOTIFY_SOCKET": self.path, **variables}
        with self.log.open("ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            process = subprocess.Popen(argv(*arguments, "--service"), env=env, **options)
        self.started.append(process)
        return process

    def hear(self, word: str) -> str:
        """Wait until it is told something; what was told before is skipped."""

        def said() -> str | None:
            try:
                told = self.channel.recv(4096).decode()
            except TimeoutError:
                return None
            return told if word in told.splitlines() else None

        return until(said, within=30, what=lambda: f"{word}\n{self.log.read_text()}")

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                process.wait(timeout=20)
        self.channel.close()


@pytest.fixture
def manager(home, tmp_path, monkeypatch) -> Iterator[Manager]:
    monkeypatch.setenv("RELAYQ_WORKER__NAME", "here")
    monkeypatch.setenv("RELAYQ_SERVE__START", "yes")
    program = tmp_path / "bin" / "relayq"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m relayq "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def test_a_worker_is_ready_without_its_broker_and_stops_for_good_only_when_asked(manager):
    # Nothing listens there.
    nowhere = {"RELAYQ_BROKER__HOST": "127.0.0.1", "RELAYQ_BROKER__PORT": "1"}
    worker = manager.start("worker", "start", WATCHDOG_USEC="400000", **nowhere)

    assert manager.hear("READY=1") == "READY=1\nSTATUS=here: 2 slots"
    assert "the broker doesn't answer" in manager.hear("WATCHDOG=1")
    assert relayq("worker", "status").returncode == 0

    assert relayq("worker", "stop").returncode == 0
    assert worker.wait(timeout=10) == STOPPED
    assert relayq("worker", "status").returncode == 3

    # At a shutdown, or to be restarted.
    worker = manager.start("worker", "start", **nowhere)
    manager.hear("READY=1")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 0


def test_a_service_takes_over_with_the_jobs_that_run(manager, home, tmp_path):
    assert relayq("up").returncode == 0
    config = configuration.load()
    before = embedded.running_broker(config), embedded.files_pid(config)
    pid = embedded.worker_pid(config)
    assert relayq("worker", "restart").returncode == 0
    assert embedded.worker_pid(config) not in (None, pid)
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo went on"
    id = submit("--", "sh", "-c", wait)
    begun(id)

    broker = manager.start("broker", "start", "--foreground")
    assert manager.hear("READY=1")
    serve = manager.start("serve", WATCHDOG_USEC="4000000")
    assert manager.hear("WATCHDOG=1")
    worker = manager.start("worker", "start")
    assert "STATUS=here: 2 slots" in manager.hear("READY=1")
    facts = until(lambda: embedded.running_broker(config), within=10, what="the broker")
    (tmp_path / "go").touch()
    until(lambda: shown(id)["state"] == "succeeded", within=20, what="the job's end")

    assert facts.pid == broker.pid
    assert facts.url == before[0].url
    assert embedded.files_pid(config) == serve.pid != before[1]
    assert embedded.worker_pid(config) == worker.pid
    # The one before has told the fleet that it is gone: large files needn't wait for a minute.
    assert "another file service" not in (home / "serve" / "serve.log").read_text()
    assert shown(id)["attempt"] == 1
    assert "went on" in relayq("logs", id).stdout
    # The log of the day, with the host's name; also for who is elsewhere.
    assert list(home.glob("logs/here_*.log"))
    assert "adopted" in relayq("worker", "logs").stdout
    elsewhere = {**environ(), "RELAYQ_WORKER__NAME": "elsewhere"}
    asked = relayq("worker", "logs", "here", env=elsewhere)
    assert "adopted" in asked.stdout, asked.stderr


def test_where_the_broker_is_a_service_a_worker_is_started_only_if_somebody_says_so(home, tmp_path):
    config = configuration.load()
    embedded.start_broker(config)
    unit = tmp_path / "relayq-broker.service"
    unit.touch()
    managed.remember(
        config, managed.Installed(Role.BROKER, managed.SYSTEMD, "user", str(unit), "fred")
    )

    asked = relayq("submit", "echo hi")

    assert "no host is online; the job waits" in asked.stderr
    assert embedded.worker_pid(config) is None
    managed.forget(config, Role.BROKER)
    assert relayq("run", "echo hello").stdout == "hello\n"
    assert relayq("wait", asked.stdout.strip()).returncode == 0
