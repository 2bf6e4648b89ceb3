"""One machine's private fleet, with the times of the lease protocol scaled down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relayq import Relay, config, embedded
from relayq.client import Job
from relayq.host.process import Shim, attempts
from tests.conftest import refusals
from tests.probing import remember
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent
#: A fifth of the real times: what takes a minute takes twelve seconds.
SCALED = {
    "LENGTH": "6",
    "BEAT": "1",
    "IDLE_BEAT": "2",
    "PERMIT": "4",
    "EXTEND": "2",
    "PARK": "60",
    "LOST_MIN": "2",
    "LOST_MAX": "4",
    "PULL": "1",
    "CHECK": "0.2",
    "TICK": "0.5",
}


class Fleet:
    """A private broker and a worker process that a test may kill and start again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.config = config.load(self.environ)
        remember(home)
        self.broker = embedded.start_broker(self.config)
        self.worker: subprocess.Popen[bytes] | None = None
        self.relay = Relay(url=self.client_url(), say=lambda _: None)

    def client_url(self) -> str:
        """Return the broker's URL for who only asks, which has fewer rights than a worker."""
        secret = embedded.add_user(self.config, "client-test", role="client")
        return f"redis://client-test:{secret}@127.0.0.1:{self.broker.port}/0"

    @property
    def job(self) -> Job:
        """The client."""
        return self.relay.job

    def start_worker(self, *command: str, **environ: str) -> None:
        """Start a worker process and wait until it is registered."""
        argv = command or ("-m", "relayq.worker")
        log = (self.home / "test-worker.log").open("ab")
        self.worker = subprocess.Popen(
            [sys.executable, *argv],
            cwd="/",
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        pid = self.worker.pid
        until(lambda: self.pid_online() == pid, within=15, what="the worker to register")

    def pid_online(self) -> int | None:
        """Return the pid of the worker that speaks for this host now."""
        hosts = self.relay.session().store.hosts.list(online_within=self.config.lease.length)
        return next((h.facts.get("pid") for h in hosts if h.is_online), None)

    def end_worker(self, number: int = signal.SIGTERM) -> None:
        """Send the worker process a signal and wait for its end."""
        if self.worker is not None:
            self.worker.send_signal(number)
            self.worker.wait(15)
            self.worker = None

    def log(self) -> str:
        """Return what the workers logged."""
        return (self.home / "test-worker.log").read_text()

    def close(self) -> None:
        """End what is left."""
        if self.worker is not None and self.worker.poll() is None:
            with suppress(ProcessLookupError):
                self.worker.send_signal(signal.SIGCONT)
            self.end_worker()
        # What a failed test left running would wait, frozen, for a permit that never comes.
        left = [Shim(one) for one in attempts(self.config.spool) if Shim(one).is_alive()]
        for shim in left:
            shim.kill("cancel", 0.0)
        for shim in left:
            shim.wait(10)
        self.relay.close()
        assert not refusals(self.config)


def start_fleet(home: Path, patch: pytest.MonkeyPatch, *, working: bool = True) -> Iterator[Fleet]:
    """Yield a broker with a worker that is up, or with none yet, and end both."""
    for name, value in SCALED.items():
        patch.setenv(f"RELAYQ_LEASE__{name}", value)
    patch.setenv("RELAYQ_HOME", str(home))
    patch.setenv("RELAYQ_DEFAULTS__GRACE", "1")
    patch.setenv("RELAYQ_WORKER__PRIORITY", "normal")
    # The tests beside this one are no owner who needs the machine.
    patch.setenv("RELAYQ_WORKER__CPU_THRESHOLD", "100")
    patch.setenv("RELAYQ_WORKER__NAME", "here")
    fleet = Fleet(home)
    try:
        if working:
            fleet.start_worker()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(home, monkeypatch):
    """A fleet whose worker and broker the test may end."""
    yield from start_fleet(home, monkeypatch)


@pytest.fixture
def idle_fleet(home, monkeypatch):
    """A fleet without a worker: the test starts one as it wants it."""
    yield from start_fleet(home, monkeypatch, working=False)


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory):
    """A fleet for tests that leave worker and broker alone."""
    home = tmp_path_factory.mktemp("shared", numbered=True) / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        yield from start_fleet(home, patch)
        embedded.stop_broker(config.load())


@pytest.fixture
def mended_fleet(shared_fleet):
    """The shared fleet, for tests that end its worker and start it again."""
    yield shared_fleet
    if shared_fleet.worker is None or shared_fleet.worker.poll() is not None:
        shared_fleet.start_worker()
