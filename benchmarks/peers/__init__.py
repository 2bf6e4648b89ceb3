"""Who is measured: the bare work, relayq, and other queues that run the same commands.

Every queue gets two slots and the same Redis. Its job is a line for the shell; its result is what
the line printed.
"""

from __future__ import annotations

import importlib
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.processes import end, launch, python

SLOTS = 2


def run_line(line: str) -> str:
    """Run a line of shell; the body of every peer's task."""
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    return done.stdout


class Peer(ABC):
    """A queue: its workers, and a client in this process."""

    name: ClassVar[str]
    #: The module without which it can't be measured.
    needs: ClassVar[str] = "relayq"

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.workers: list[subprocess.Popen[bytes]] = []

    @classmethod
    def is_installed(cls) -> bool:
        """Whether its package is here."""
        try:
            importlib.import_module(cls.needs)
        except ImportError:
            return False
        return True

    def commands(self) -> Sequence[Sequence[str]]:
        """Return the command line of each worker process."""
        return []

    def environment(self) -> dict[str, str] | None:
        """Return the workers' environment, None for the usual one."""
        return None

    def start(self) -> None:
        """Start the workers, without waiting for them."""
        for i, argv in enumerate(self.commands()):
            log = self.directory / f"worker{i}.log"
            self.workers.append(launch(argv, log, self.environment()))

    def close(self) -> None:
        """End the workers."""
        while self.workers:
            end(self.workers.pop())

    @abstractmethod
    def submit(self, line: str) -> Any:
        """Queue a line."""

    @abstractmethod
    def result(self, submitted: Any, timeout: float) -> str:
        """Wait for a line's end and return what it printed."""

    def submit_many(self, lines: Sequence[str]) -> Sequence[Any]:
        """Queue many lines, in the best way that this queue has for results one by one."""
        return [self.submit(line) for line in lines]


class Floor(Peer):
    """The work itself: `subprocess.run` in a loop, and for many lines in two threads."""

    name = "floor"

    def submit(self, line: str) -> Any:
        """Run it."""
        return run_line(line)

    def result(self, submitted: Any, timeout: float) -> str:
        """Return what it printed."""
        return str(submitted.result(timeout)) if hasattr(submitted, "result") else submitted

    def submit_many(self, lines: Sequence[str]) -> Sequence[Any]:
        """Run them, two at a time."""
        with ThreadPoolExecutor(SLOTS) as pool:
            return [pool.submit(run_line, line) for line in lines]


class Relayq(Peer):
    """relayq: a record, a lease and a shim of its own for each job."""

    name = "relayq"

    def __init__(self, url: str, directory: Path, *, slots: int = SLOTS) -> None:
        from relayq import Relay

        super().__init__(url, directory)
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True, mode=0o700)
        self.slots = slots
        self.relay = Relay(url=url, home=self.home)

    def environment(self) -> dict[str, str]:
        """Return its worker's environment; as nice as the peers' workers."""
        from benchmarks.processes import environment

        return environment(
            RELAYQ_HOME=str(self.home),
            RELAYQ_BROKER__URL=self.url,
            RELAYQ_WORKER__NAME="bench",
            RELAYQ_WORKER__MAX_CONCURRENT=str(self.slots),
            RELAYQ_WORKER__PRIORITY="normal",
            RELAYQ_WORKER__CPU_THRESHOLD="100",
        )

    def commands(self) -> Sequence[Sequence[str]]:
        """Return the one worker's command line."""
        return [python("-m", "relayq.worker")]

    def close(self) -> None:
        """End the worker and the connection."""
        super().close()
        self.relay.close()

    def submit(self, line: str) -> Any:
        """Queue a line."""
        return self.relay.job.run(line)

    def result(self, submitted: Any, timeout: float) -> str:
        """Wait for its end."""
        return str(submitted.get(timeout=timeout))

    def submit_many(self, lines: Sequence[str]) -> Sequence[Any]:
        """Queue them, 1,000 a round trip."""
        return self.relay.job.submit_many(lines)


class CeleryThreads(Peer):
    """Plain Celery, as its documentation starts it, with a pool of threads."""

    name = "celery"
    needs = "celery"

    def commands(self) -> Sequence[Sequence[str]]:
        """Return the one worker's command line."""
        app = "benchmarks.peers.on_celery"
        options = ["-P", "threads", "-c", str(SLOTS), "-l", "WARNING"]
        return [python("-m", "celery", "-A", app, "worker", *options)]

    def submit(self, line: str) -> Any:
        """Queue a line."""
        from benchmarks.peers.on_celery import run

        return run.delay(line)

    def result(self, submitted: Any, timeout: float) -> str:
        """Wait for its end."""
        return str(submitted.get(timeout=timeout))


class Rq(Peer):
    """RQ: a process forked for each job, and a worker a slot."""

    name = "rq"
    needs = "rq"

    def __init__(self, url: str, directory: Path) -> None:
        from redis import Redis
        from rq import Queue

        super().__init__(url, directory)
        self._queue = Queue(connection=Redis.from_url(url))

    def commands(self) -> Sequence[Sequence[str]]:
        """Return a worker's command line for each slot."""
        return [python("-m", "rq.cli", "worker", "-q", "--url", self.url)] * SLOTS

    def submit(self, line: str) -> Any:
        """Queue a line."""
        return self._queue.enqueue(run_line, line)

    def result(self, submitted: Any, timeout: float) -> str:
        """Wait for its end."""
        result = submitted.latest_result(timeout=max(1, int(timeout)))
        if result is None:
            raise TimeoutError(f"no result within {timeout:g} s")
        return str(result.return_value)


class Huey(Peer):
    """huey, told to notify who waits for a result."""

    name = "huey"
    needs = "huey"

    def commands(self) -> Sequence[Sequence[str]]:
        """Return the one worker's command line."""
        app = "benchmarks.peers.on_huey.app"
        return [python("-m", "huey.bin.huey_consumer", app, "-w", str(SLOTS), "-q")]

    def submit(self, line: str) -> Any:
        """Queue a line."""
        from benchmarks.peers.on_huey import run

        return run(line)

    def result(self, submitted: Any, timeout: float) -> str:
        """Wait for its end."""
        return str(submitted.get(blocking=True, timeout=timeout))


PEERS: tuple[type[Peer], ...] = (Floor, Relayq, CeleryThreads, Rq, Huey)
