"""A fleet on one machine: every host is a network namespace with a hostname and a home of its own.

The hosts' cables end at a bridge inside the broker's namespace, so the network of the machine
itself is never touched and two runs of the tests can't meet. Needs root and ip(8).
"""

from __future__ import annotations

import itertools
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil

from relayq import config, embedded
from tests.probing import remember
from tests.waiting import until

ROOT = Path(__file__).parents[2]
RELAYQ = (sys.executable, "-m", "relayq")
PORT = 21_077
#: From TERM to KILL on every host.
GRACE = 2.0
#: Of one fleet, the broker's among them.
MOST_HOSTS = 8
_REFUSALS = """
from relayq import config, embedded
from relayq.store import connect
own = config.load()
if embedded.running_broker(own) is None:
    raise SystemExit(1)
for line in connect(embedded.admin_url(own)).access.refusals():
    print(line)
"""


def ip(*words: str) -> str:
    """Run ip(8); what it complains about is the error."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Command:
    """A command on a host: it runs, its output goes to files, `finish` waits for its end."""

    def __init__(self, host: Host, argv: tuple[str, ...], files: Path) -> None:
        self.host = host
        self.argv = argv
        self.seconds = 0.0
        self._began = monotonic()
        self._out, self._err = files.with_suffix(".out"), files.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            # ip, unshare and sh become the command one after the other: the pid is the command's.
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", host.namespace, "unshare", "--uts"]
                + ["sh", "-c", 'hostname "$0" && exec "$@"', host.name, *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=host.home,
                env=host.environment(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self.process.poll()

    @property
    def stdout(self) -> bytes:
        return self._out.read_bytes()

    @property
    def stdout_file(self) -> Path:
        return self._out

    @property
    def out(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def finish(self, within: float = 60.0, *, noted: bool = True) -> Command:
        """Wait for the end; a command that doesn't come to it is killed, and that's a failure."""
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"no end within {within:g} s:\n{self}") from error
        finally:
            self.seconds = self.seconds or monotonic() - self._began
            if noted:
                self.host.fleet.note(str(self))
        return self

    def kill(self, number: signal.Signals = signal.SIGKILL, within: float = 20.0) -> None:
        """Send a signal that ends it, and wait for that."""
        self.process.send_signal(number)
        self.process.wait(within)

    def __str__(self) -> str:
        words = shlex.join(self.argv).replace(f"{sys.executable} -m relayq", "relayq")
        lines = [f"{self.host.name}$ {words}"]
        for mark, raw in (("", self.stdout), ("! ", self._err.read_bytes())):
            lines += [f"{mark}{line}" for line in _shown(raw)]
        return "\n".join([*lines, f"[exit {self.status}, {self.seconds:.1f} s]"])


def _shown(raw: bytes) -> list[str]:
    """Return an output as lines for the transcript; of a long or a binary one only its size."""
    try:
        text = raw[:100_000].decode()
    except UnicodeDecodeError:
        text = "\0"
    if len(raw) > 100_000 or "\0" in text:
        return [f"({len(raw)} bytes)"]
    lines = text.splitlines()
    return lines if len(lines) <= 20 else [*lines[:8], "(...)", *lines[-8:]]


@dataclass(eq=False)
class Host:
    """A machine, as far as relayq can tell."""

    fleet: Fleet
    name: str
    namespace: str
    address: str
    user: str
    worker: Command | None = field(default=None)
    path: str = field(default_factory=lambda: os.environ["PATH"])

    @property
    def home(self) -> Path:
        return self.fleet.directory / self.namespace / "home"

    @property
    def relayq_home(self) -> Path:
        return self.home / ".relayq"

    def environment(self) -> dict[str, str]:
        """Return the environment of everything that is started here."""
        return {
            "HOME": str(self.home),
            "RELAYQ_HOME": str(self.relayq_home),
            "PATH": self.path,
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            # The hosts share one machine's CPU: each would stand back for the others' jobs.
            "RELAYQ_WORKER__CPU_THRESHOLD": "100",
            **self.fleet.settings,
        }

    def furnish(self, *without: str, **scripts: str) -> None:
        """Have it find this machine's programs but those named, and these shell scripts."""
        folder = self.home / "programs"
        folder.mkdir()
        self.path = str(folder)
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        for place in os.environ["PATH"].split(os.pathsep):
            for program in Path(place).iterdir() if Path(place).is_dir() else ():
                if program.name not in without and not os.path.lexists(folder / program.name):
                    (folder / program.name).symlink_to(program)

    def configure(self, worker: str = "", *, key: str | None = None) -> None:
        """Write what a new host is given: config.yml, its user's password, the fleet's key."""
        self.relayq_home.mkdir(parents=True, mode=0o700)
        remember(self.relayq_home)
        broker = f"host: {self.fleet.broker.address}, port: {PORT}, user: {self.user}"
        (self.relayq_home / "config.yml").write_text(
            f"broker: {{{broker}, password_file: password}}\ndefaults: {{grace: {GRACE}}}\n{worker}"
        )
        self.write_secret("password", self.fleet.secrets[self.user])
        self.write_secret("fleet.key", key or self.fleet.key)

    def write_secret(self, name: str, text: str) -> None:
        path = self.relayq_home / name
        path.touch(mode=0o600)
        path.write_text(f"{text}\n")

    def start(self, *argv: str) -> Command:
        """Start a command here."""
        return self.fleet.start(self, argv)

    def relayq(self, *words: str, within: float = 60.0) -> Command:
        """Run relayq here, to its end."""
        return self.start_relayq(*words).finish(within)

    def start_relayq(self, *words: str) -> Command:
        return self.start(*RELAYQ, *words)

    def start_worker(self) -> None:
        """Start this host's worker; the broker may refuse it, so nothing is waited for."""
        self.fleet.note(f"{self.name}$ relayq worker start &")
        self.worker = self.start_relayq("worker", "start")

    def repair(self) -> None:
        """Put right what a test may have left: the cable, and the worker."""
        self.set_link("up")
        if self.worker is None or self.worker.status is not None:
            self.start_worker()

    def end_worker(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the worker by a signal; its jobs are their shims'."""
        if self.worker is None:
            raise RuntimeError(f"{self.name} has no worker")
        self.fleet.note(f"{self.name}$ kill -{number.name.removeprefix('SIG')} {self.worker.pid}")
        worker, self.worker = self.worker, None
        worker.kill(number)
        worker.finish()

    def set_link(self, state: str) -> None:
        """Pull the cable (`down`), or plug it in again (`up`)."""
        if f"state {state.upper()}" in ip("-n", self.namespace, "link", "show", "eth0"):
            return
        self.fleet.note(f"{self.name}$ ip link set eth0 {state}")
        ip("-n", self.namespace, "link", "set", "eth0", state)

    def pids(self, name: str = "") -> list[int]:
        """Return every process of this host: whatever its ancestry, it can't leave its network.

        With a name, those that are called so.
        """
        found = [int(pid) for pid in ip("netns", "pids", self.namespace).split()]
        if not name:
            return found
        return [
            pid for pid in found if psutil.pid_exists(pid) and psutil.Process(pid).name() == name
        ]


class Fleet:
    """The hosts, the network between them, and a transcript of what was typed on them."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = settings
        self.directory = Path(tempfile.mkdtemp(prefix="rq-fleet-", dir="/tmp"))
        self.key = secrets.token_hex(32)
        self.secrets: dict[str, str] = {}
        self.transcript: list[str] = []
        self.hosts: list[Host] = []
        self._commands: list[Command] = []
        self._tag = f"rq{os.getpid()}-{secrets.token_hex(2)}"
        self._network = f"10.77.{os.getpid() % 250 + 1}"

    @property
    def broker(self) -> Host:
        return self.hosts[0]

    def _add(self, name: str) -> Host:
        number = len(self.hosts) + 1
        namespace = f"{self._tag}-{number}"
        role = "client" if name == "client" else "worker"
        host = Host(self, name, namespace, f"{self._network}.{number}", f"{role}-{number}")
        ip("netns", "add", namespace)
        self.hosts.append(host)
        host.home.mkdir(parents=True)
        ip("-n", namespace, "link", "set", "lo", "up")
        if number == 1:
            ip("-n", namespace, "link", "add", "eth0", "type", "bridge")
        else:
            bridge, port = self.broker.namespace, f"port{number}"
            peer = ["peer", "name", "eth0", "netns", namespace]
            ip("-n", bridge, "link", "add", port, "type", "veth", *peer)
            ip("-n", bridge, "link", "set", port, "master", "eth0", "up")
        ip("-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        return host

    def add(self, name: str, worker: str = "", *, key: str | None = None) -> Host:
        """Add a host with this hostname; `worker` is that section of its config.yml.

        One called client has a client's rights at the broker, the others have a worker's.
        """
        host = self._add(name)
        host.configure(worker, key=key)
        return host

    def open(self) -> None:
        """Build the network with the broker's host in it, and start the broker."""
        self._add("broker")
        self.broker.relayq_home.mkdir(mode=0o700)
        self.broker.write_secret("fleet.key", self.key)
        # While it doesn't run nobody needs to reach it, which only its network could.
        own = config.load({"RELAYQ_HOME": str(self.broker.relayq_home)})
        for role, number in itertools.product(("worker", "client"), range(2, MOST_HOSTS + 1)):
            user = f"{role}-{number}"
            self.secrets[user] = embedded.add_user(own, user, role=role)
        started = self.start_broker()
        if started.status != 0:
            raise RuntimeError(f"no broker:\n{started}")

    def start_broker(self) -> Command:
        """Start the broker as its owner would, for the first time or again."""
        listen = ("--listen", self.broker.address, "--port", str(PORT))
        return self.broker.relayq("broker", "start", *listen)

    def kill_broker(self) -> None:
        """Kill the Redis server, and a child of its that rewrites its file; wait for their end."""
        refused = self.refusals()
        assert not refused, "\n".join(refused)
        self.note(f"broker$ kill -KILL {' '.join(map(str, self.broker.pids()))}")
        until(lambda: not _kill_all(self.broker), what="the broker to be gone")

    def host(self, name: str) -> Host:
        """Return the host with this hostname."""
        return next(host for host in self.hosts if host.name == name)

    def start(self, host: Host, argv: tuple[str, ...]) -> Command:
        command = Command(host, argv, self.directory / f"{len(self._commands)}-{host.name}.out")
        self._commands.append(command)
        return command

    def note(self, text: str) -> None:
        """Add to the transcript; pytest -s shows it."""
        print(text, flush=True)
        self.transcript.append(text)

    def close(self) -> None:
        """End every process of every host, take the network down, and remove the homes.

        What the broker refused to a host fails the test.
        """
        refused = self.refusals()
        for host in self.hosts:
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                host.end_worker()
        try:
            for host in self.hosts:
                until(lambda host=host: not _kill_all(host), what=f"{host.name} to be empty")
            for command in self._commands:
                if command.seconds == 0:
                    command.finish(5)
        finally:
            for host in self.hosts:
                ip("netns", "delete", host.namespace)
            self._write_transcript()
            shutil.rmtree(self.directory, ignore_errors=True)
        assert not refused, "\n".join(refused)

    def refusals(self) -> list[str]:
        """Return what the broker refused to its users since its start, if it runs."""
        asked = self.broker.start(sys.executable, "-c", _REFUSALS)
        return [] if asked.finish(noted=False).status else asked.out.splitlines()

    def _write_transcript(self) -> None:
        # The conftest empties os.environ of what could configure relayq, so this asks the kernel.
        if file := psutil.Process().environ().get("RELAYQ_TRANSCRIPT"):
            Path(file).write_text("\n\n".join(self.transcript) + "\n")


def has_namespaces() -> bool:
    """Tell whether this machine lets us make one; root in a container may not."""
    name = f"rq{os.getpid()}-probe"
    try:
        ip("netns", "add", name)
        ip("netns", "exec", name, "unshare", "--uts", "true")
    except RuntimeError:
        return False
    finally:
        with suppress(RuntimeError):
            ip("netns", "delete", name)
    return True


def _kill_all(host: Host) -> list[int]:
    pids = host.pids()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


@contextmanager
def fleet(settings: Mapping[str, str] | None = None) -> Iterator[Fleet]:
    """Run a fleet, with a broker and no other host yet; leave nothing of it.

    `settings` are variables of every command on every host.
    """
    made = Fleet(settings or {})
    try:
        made.open()
        yield made
    finally:
        made.close()
