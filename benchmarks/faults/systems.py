"""The systems that are put to the test, each with a Redis, workers and a client of its own."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import psutil

from benchmarks.faults.on_celery import LATE, TASK, build
from benchmarks.peers import run_line
from benchmarks.processes import BROKER, Redis, environment, launch, python
from relayq import Relay, clock
from relayq.version import __version__

#: In the environment of everything that a cell starts: the cell's directory.
_MARK = "BENCHMARK_CELL"
#: What starts and ends slowly on a busy machine.
_PATIENCE = 40.0


def wait(predicate: Callable[[], object], within: float) -> bool:
    """Wait until something holds; False when it doesn't in time."""
    deadline = monotonic() + within
    while not predicate():
        if monotonic() > deadline:
            return False
        clock.sleep(0.05)
    return True


@dataclass
class Worker:
    """One worker process."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def has_exited(self) -> bool:
        """Whether it has ended, by itself or not."""
        return self.process.poll() is not None


@dataclass(frozen=True)
class State:
    """What a system says of a job, in its own words."""

    word: str
    is_final: bool
    is_success: bool
    #: Why it failed.
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


class System(ABC):
    """A queue with its workers, to which something happens."""

    name: ClassVar[str]
    needs: ClassVar[str]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.redis = Redis(directory / "redis", durable=True)
        self.workers: list[Worker] = []

    @classmethod
    def is_installed(cls) -> bool:
        """Whether its package is here."""
        try:
            importlib.import_module(cls.needs)
        except ImportError:
            return False
        return True

    @classmethod
    def version(cls) -> str:
        """Return its package's version."""
        return version(cls.needs)

    @property
    def journal(self) -> Path:
        """The file in which the jobs write what they do."""
        return self.directory / "journal"

    def start_worker(self) -> Worker:
        """Start a worker, and wait until it takes jobs."""
        number = len(self.workers)
        log = self.directory / f"worker{number}.log"
        env = environment(**{BROKER: self.redis.url, _MARK: str(self.directory)})
        worker = Worker(launch(self.command(number), log, env | self.settings(number)), log)
        self.workers.append(worker)
        if not wait(lambda: self.is_ready(worker), _PATIENCE):
            raise RuntimeError(f"no worker of {self.name}:\n{log.read_text()[-2000:]}")
        return worker

    def settings(self, number: int) -> dict[str, str]:
        """Return what its n-th worker has in its environment besides."""
        return {}

    def held(self) -> int | None:
        """Return how many messages the broker has that could yet start a job, None if unknown."""
        return None

    def close(self) -> None:
        """End all that was started, whoever is its parent now."""
        mark = str(self.directory)
        for _ in range(20):
            marked = [p for p in psutil.process_iter() if _environ(p).get(_MARK) == mark]
            for process in marked:
                with suppress(psutil.Error):
                    process.kill()
            for worker in self.workers:
                worker.process.poll()
            if all(_is_dead(process.pid) for process in marked):
                break
            clock.sleep(0.05)
        self.redis.connection.close()
        self.redis.kill()

    @abstractmethod
    def command(self, number: int) -> Sequence[str]:
        """Return the command line of its n-th worker."""

    @abstractmethod
    def is_ready(self, worker: Worker) -> bool:
        """Whether a worker takes jobs."""

    @abstractmethod
    def submit(self, line: str) -> Any:
        """Queue a line of shell."""

    @abstractmethod
    def state(self, job: Any) -> State:
        """Return what it says of a job."""

    @abstractmethod
    def cancel(self, job: Any) -> None:
        """Cancel a job, in the way that its documentation has for that."""


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def alive(pids: Sequence[int]) -> list[int]:
    """Return those processes that haven't ended."""
    return [pid for pid in pids if not _is_dead(pid)]


class Celery(System):
    """Celery as it comes."""

    name = "Celery"
    needs = "celery"
    late: ClassVar[bool] = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._app = build(self.redis.url, late=self.late)

    def command(self, number: int) -> Sequence[str]:
        """Return a worker with the usual pool, of two processes."""
        options = ["-c", "2", "-l", "INFO", "-n", f"worker{number}@%h"]
        return python("-m", "celery", "-A", "benchmarks.faults.on_celery", "worker", *options)

    def settings(self, number: int) -> dict[str, str]:
        """Tell the worker's app."""
        return {LATE: "1"} if self.late else {}

    def is_ready(self, worker: Worker) -> bool:
        """Whether it says so."""
        return " ready." in worker.log.read_text()

    def submit(self, line: str) -> Any:
        """Queue a line of shell."""
        return self._app.tasks[TASK].delay(line)

    def state(self, job: Any) -> State:
        """Return what the result backend has."""
        word = job.state
        why = type(job.result).__name__ if word == "FAILURE" else ""
        return State(word, word in ("SUCCESS", "FAILURE", "REVOKED"), word == "SUCCESS", why)

    def cancel(self, job: Any) -> None:
        """Revoke it, and have its process ended."""
        job.revoke(terminate=True)

    def held(self) -> int:
        """Return how many messages there are, taken and not."""
        connection = self.redis.connection
        return int(connection.llen("celery")) + int(connection.hlen("unacked"))


class CeleryLate(Celery):
    """Celery, told to keep a message until its job has ended."""

    name = "Celery, acks_late and reject_on_worker_lost"
    late = True


class Rq(System):
    """RQ as it comes; what it looks after every 10 minutes it does every 5 s."""

    name = "RQ"
    needs = "rq"

    def __init__(self, directory: Path) -> None:
        from redis import Redis as Connection
        from rq import Queue

        super().__init__(directory)
        self._connection = Connection.from_url(self.redis.url)
        self._queue = Queue(connection=self._connection)

    def command(self, number: int) -> Sequence[str]:
        """Return a worker."""
        scaled = ["--maintenance-interval", "5", "--job-monitoring-interval", "5"]
        return python("-m", "rq.cli", "worker", "--url", self.redis.url, *scaled)

    def is_ready(self, worker: Worker) -> bool:
        """Whether it says so."""
        return "Listening on" in worker.log.read_text()

    def submit(self, line: str) -> Any:
        """Queue a line of shell."""
        return self._queue.enqueue(run_line, line)

    def state(self, job: Any) -> State:
        """Return what its record says."""
        word = str(job.get_status(refresh=True).value)
        why = ""
        if word == "failed" and (result := job.latest_result()) is not None:
            last = "".join((result.exc_string or "").strip().splitlines()[-1:])
            named = re.search(r"\w+(?:Error|Exception)\b", last) or re.match(r"[^;:]+", last)
            why = named[0] if named else ""
        return State(
            word, word in ("finished", "failed", "stopped", "canceled"), word == "finished", why
        )

    def cancel(self, job: Any) -> None:
        """Stop it when it runs, else take it off its queue."""
        from rq.command import send_stop_job_command

        if job.get_status(refresh=True).value == "started":
            send_stop_job_command(self._connection, job.id)
        else:
            job.cancel()


class Relayq(System):
    """relayq, with a tenth of the lease protocol's times."""

    name = "relayq"
    needs = "relayq"
    #: The same ratios as the real times, rounded.
    SCALED: ClassVar = {
        "LENGTH": "6",
        "BEAT": "1.5",
        "IDLE_BEAT": "3",
        "PERMIT": "4.5",
        "EXTEND": "1.5",
        "PARK": "90",
        "LOST_MIN": "3",
        "LOST_MAX": "90",
        "PULL": "0.5",
        "CHECK": "0.2",
        "TICK": "0.5",
    }

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._client = self._home("client")
        self.relay = Relay(url=self.redis.url, home=self._client, say=lambda _: None)
        self.relay.session()

    @classmethod
    def version(cls) -> str:
        """Return the version of this checkout, installed or not."""
        return __version__

    def _home(self, name: str) -> Path:
        home = self.directory / name
        home.mkdir(mode=0o700, exist_ok=True)
        return home

    def command(self, number: int) -> Sequence[str]:
        """Return a worker."""
        return python("-m", "relayq.worker")

    def settings(self, number: int) -> dict[str, str]:
        """Return a host's configuration; the first host's workers follow one another."""
        is_second = any(not worker.has_exited for worker in self.workers)
        name = "two" if is_second else "one"
        home = self._home(name)
        shutil.copy2(self._client / "fleet.key", home / "fleet.key")
        return {
            "RELAYQ_HOME": str(home),
            "RELAYQ_BROKER__URL": self.redis.url,
            "RELAYQ_WORKER__NAME": name,
            "RELAYQ_WORKER__PRIORITY": "normal",
            "RELAYQ_WORKER__CPU_THRESHOLD": "100",
            **{f"RELAYQ_LEASE__{key}": value for key, value in self.SCALED.items()},
        }

    def is_ready(self, worker: Worker) -> bool:
        """Whether the broker knows it."""
        hosts = self.relay.session().store.hosts.list(online_within=float(self.SCALED["LENGTH"]))
        return any(host.facts.get("pid") == worker.process.pid for host in hosts)

    def submit(self, line: str) -> Any:
        """Queue a line of shell."""
        return self.relay.job.run(line, env={_MARK: str(self.directory)})

    def state(self, job: Any) -> State:
        """Return what its record says."""
        record = job.record
        why = str(record.reason or "") if record.state == "failed" else ""
        return State(str(record.state), record.state.is_final, record.state == "succeeded", why)

    def cancel(self, job: Any) -> None:
        """Cancel it."""
        job.cancel()

    def close(self) -> None:
        """End all that was started, and the connection."""
        super().close()
        self.relay.close()


SYSTEMS: tuple[type[System], ...] = (Celery, CeleryLate, Rq, Relayq)
