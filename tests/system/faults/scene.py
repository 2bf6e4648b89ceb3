"""A broker and workers that a test may kill, hang, cut off and fill, on one machine.

Each host has a home of its own and reaches the broker by a link of its own, and so does the
client: so each can be cut off alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relayq import Relay, config
from relayq.client import Job
from relayq.errors import BrokerUnavailable
from relayq.host.process import Shim, attempts
from relayq.ledger import host_ledger
from relayq.model import access
from relayq.store import Store, connect
from relayq.store.access import Access
from relayq.store.keys import PREFIX
from tests.conftest import answers
from tests.probing import remember
from tests.system.commands import SILENT, argv
from tests.system.faults.proxy import Link
from tests.waiting import until

ROOT = Path(__file__).parents[3]
#: About a fifteenth of the real times: what takes a minute takes four seconds.
SCALED = {
    "LENGTH": 4.0,
    "BEAT": 0.7,
    "IDLE_BEAT": 1.0,
    "PERMIT": 3.0,
    "EXTEND": 3.0,
    "PARK": 60.0,
    "LOST_MIN": 1.5,
    "LOST_MAX": 3.0,
    "PULL": 0.5,
    "CHECK": 0.1,
    "TICK": 0.4,
}
#: What a worker has that nobody configures.
REAL = {
    "length": 60.0,
    "beat": 15.0,
    "idle_beat": 30.0,
    "permit": 45.0,
    "extend": 15.0,
    "park": 900.0,
    "lost_min": 30.0,
    "lost_max": 900.0,
    "pull": 5.0,
    "check": 2.0,
    "tick": 5.0,
}
GRACE = 1.0


class Broker:
    """A Redis server of the test's own, on one port for all of its lives."""

    def __init__(self, binary: Path, directory: Path, *, fsync: str = "always") -> None:
        self.directory = directory
        self.port = free_port()
        self._binary = binary
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self.connection = redis.Redis(
            port=self.port, socket_timeout=3, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0)
        )

    def url(self, role: str, port: int | None = None) -> str:
        """Return the URL for a user of this role, perhaps by way of a link's port."""
        return f"redis://{role}:{role}@127.0.0.1:{port or self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def append_only(self) -> Path:
        """The directory of the append-only file (Redis 7)."""
        return self.directory / "appendonlydir"

    def start(self, *, wait: bool = True) -> None:
        """Start it on the data that are there, and wait until it answers."""
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.directory,
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "local",
            "aclfile": self.directory / "users.acl",
        }
        # The tests themselves are `default`, and may do anything.
        users = [
            f"user {role} on >{role} {' '.join(access.rules(role, PREFIX))}\n"
            for role in access.ROLES
        ]
        (self.directory / "users.acl").write_text("".join(users))
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, *words], stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            until(self._answers, within=15, what="the broker to answer")

    def _answers(self) -> bool:
        log = self.directory / "redis.log"
        assert self.is_alive, f"{self._binary} ended: {log.read_text(errors='replace')[-500:]}"
        return answers(self.connection)

    def kill(self) -> None:
        """End it as a crash does."""
        assert not self.refusals()
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(15)
            self._process = None
        self.connection.close()

    def refusals(self) -> list[str]:
        """Return what it refused to workers and clients since its start, if it answers."""
        try:
            return Access(self.connection).refusals()
        except BrokerUnavailable:
            return []

    def restart(self) -> None:
        """Crash, and come back."""
        self.kill()
        self.start()

    def hang(self) -> None:
        """Stop answering; the kernel still takes connections for it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Hang for the length of a block."""
        self.hang()
        try:
            yield
        finally:
            self.resume()

    def set(self, **options: Any) -> None:
        """Change its configuration while it runs; `_` stands for `-`."""
        for name, value in options.items():
            self.connection.config_set(name.replace("_", "-"), value)

    def close(self) -> None:
        self.kill()


class Host:
    """A worker's machine, as far as relayq can tell."""

    def __init__(self, scene: Scene, name: str, *, slots: int, **environ: str) -> None:
        self.name = name
        self.link = Link(scene.broker.port)
        self.home = scene.new_home(name)
        remember(self.home)
        self.environ = scene.environ(self.home, self.link, "worker")
        self.environ |= {
            "RELAYQ_WORKER__NAME": name,
            "RELAYQ_WORKER__MAX_CONCURRENT": str(slots),
            "RELAYQ_WORKER__PRIORITY": "normal",
            "RELAYQ_WORKER__CPU_THRESHOLD": "100",
            **environ,
        }
        self.config = config.load(self.environ)
        self._scene = scene
        self.worker: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.worker is not None
        return self.worker.pid

    @property
    def is_alive(self) -> bool:
        return self.worker is not None and self.worker.poll() is None

    @property
    def log(self) -> str:
        """What its workers logged."""
        return (self.home / "test-worker.log").read_text()

    def start(self, *, wait: bool = True, **environ: str) -> None:
        """Start the worker, and wait until the broker knows it."""
        with (self.home / "test-worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "relayq.worker"],
                cwd="/",
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            until(self.is_online, within=20, what=lambda: f"{self.name} to register:\n{self.log}")

    def is_online(self) -> bool:
        """Tell whether the broker has heard of this very worker process."""
        length = self.config.lease.length
        hosts = self._scene.store.hosts.list(online_within=length)
        return any(h.is_online and h.facts.get("pid") == self.pid for h in hosts)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the worker by a signal; its jobs are their shims'."""
        if self.worker is not None:
            worker, self.worker = self.worker, None
            with suppress(ProcessLookupError):
                worker.send_signal(number)
                worker.send_signal(signal.SIGCONT)
            worker.wait(20)

    def repair(self) -> None:
        """Put right what a test may have left."""
        self.link.heal()
        if self.is_alive:
            os.kill(self.pid, signal.SIGCONT)
        else:
            self.start()

    def attempts(self, id: str | None = None) -> list[Path]:
        """Return the directories of attempts in its spool, of one job or of all."""
        return [one for one in attempts(self.config.spool) if one.name.startswith(id or "")]

    def close(self) -> None:
        """End the worker and whatever it started."""
        self.end(signal.SIGKILL)
        # What a failed test left running would wait, frozen, for a permit that never comes.
        left = [shim for shim in map(Shim, self.attempts()) if shim.is_alive()]
        for shim in left:
            shim.kill("cancel", 0.0)
        for shim in left:
            shim.wait(10)
        until(lambda: not kill_all_of(self.home), within=10, what=f"all of {self.name} to end")
        self.link.close()
        # Killed at any moment, started again and again: the trail's chain must have held (I8).
        trail = host_ledger(self.home).verify()
        assert trail.is_whole, f"the audit trail of {self.name}: {trail.broken}"
        assert not any(cut.lost for cut in trail.cuts), f"entries of {self.name}: {trail.cuts}"


class Scene:
    """One broker, the hosts, and a client: `job` directly, `relayq` by a link of its own."""

    def __init__(
        self,
        binary: Path,
        *,
        fsync: str = "always",
        broker_directory: Path | None = None,
        **lease: float,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rq-faults-", dir="/tmp"))
        self._times = {**SCALED, **{name.upper(): value for name, value in lease.items()}}
        self._key = secrets.token_hex(32)
        folder = broker_directory or self.directory / "broker"
        folder.mkdir(exist_ok=True)
        self.broker = Broker(binary, folder, fsync=fsync)
        self.broker.start()
        self.hosts: dict[str, Host] = {}
        self.link = Link(self.broker.port)
        self.home = self.new_home("client")
        #: What relayq said to the client.
        self.said: list[str] = []
        url = self.broker.url("client")
        self.relay = Relay(url=url, home=self.home, say=self.said.append)
        #: A client behind the link.
        far_url = self.broker.url("client", self.link.port)
        self.far = Relay(url=far_url, home=self.home, say=self.said.append)
        self._begun: list[subprocess.Popen[str]] = []
        #: For looking at the broker.
        self.store: Store = connect(f"redis://127.0.0.1:{self.broker.port}/0")

    @property
    def job(self) -> Job:
        """The client."""
        return self.relay.job

    def new_home(self, name: str) -> Path:
        home = self.directory / name
        home.mkdir(mode=0o700)
        (home / "fleet.key").touch(mode=0o600)
        (home / "fleet.key").write_text(f"{self._key}\n")
        return home

    def environ(self, home: Path, link: Link, role: str = "client") -> dict[str, str]:
        """Return the environment of a process with this home and this way to the broker."""
        outer = {name: text for name, text in os.environ.items() if not name.startswith("RELAYQ_")}
        return {
            **outer,
            **{f"RELAYQ_LEASE__{name}": str(value) for name, value in self._times.items()},
            "PYTHONPATH": str(ROOT),
            "RELAYQ_HOME": str(home),
            "RELAYQ_BROKER__URL": self.broker.url(role, link.port),
            "RELAYQ_DEFAULTS__GRACE": str(GRACE),
        }

    def add(self, name: str, *, slots: int = 4, start: bool = True, **environ: str) -> Host:
        """Add a host, its worker up."""
        self.hosts[name] = host = Host(self, name, slots=slots, **environ)
        if start:
            host.start()
        return host

    def begin(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on the client's machine."""
        env = self.environ(self.home, self.link)
        begun = subprocess.Popen(argv(*arguments), text=True, env=env, **{**SILENT, **options})
        self._begun.append(begun)
        return begun

    def relayq(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command on the client's machine to its end."""
        env = self.environ(self.home, self.link)
        return subprocess.run(argv(*arguments), text=True, timeout=timeout, env=env, **SILENT)

    def repair(self) -> None:
        """Put right what a test may have left: broker, links, workers."""
        if not self.broker.is_alive:
            self.broker.start()
        self.broker.resume()
        until(lambda: answers(self.broker.connection), within=10, what="the broker to answer")
        self.broker.set(maxmemory=0)
        self.link.heal()
        self.said.clear()
        for host in self.hosts.values():
            host.repair()
        for host in self.hosts.values():
            until(host.is_online, within=20, what=lambda host=host: f"{host.name}:\n{host.log}")

    def close(self) -> None:
        """End everything, and leave nothing."""
        try:
            for begun in self._begun:
                begun.kill()
                begun.communicate()
            for host in self.hosts.values():
                host.close()
        finally:
            self.relay.close()
            self.far.close()
            self.store.close()
            self.link.close()
            self.broker.close()
            shutil.rmtree(self.directory, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens on and no outgoing connection will take."""
    for _ in range(100):
        # Below what the kernel gives to clients, so that it is still free after a crash.
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


def kill_all_of(home: Path) -> Sequence[int]:
    """Kill the processes whose environment or working directory names the home."""
    left = []
    for process in psutil.process_iter(["environ", "cwd"]):
        environ, cwd = process.info["environ"] or {}, process.info["cwd"] or "/"
        if environ.get("RELAYQ_HOME") == str(home) or Path(cwd).is_relative_to(home):
            left.append(process.pid)
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return left


@contextmanager
def scene(binary: Path, **options: Any) -> Iterator[Scene]:
    """Run a broker with a client and no host yet; leave nothing of it. Options are `Scene`'s."""
    made = Scene(binary, **options)
    try:
        yield made
    finally:
        made.close()
