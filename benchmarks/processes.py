"""The processes of a benchmark: its Redis, the workers, and what they cost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import redis

from relayq import clock

ROOT = Path(__file__).parent.parent
#: Where the peers' own modules find the broker.
BROKER = "RELAYQ_BENCHMARK_BROKER"


def python(*arguments: str) -> list[str]:
    """Return the command line of this Python."""
    return [sys.executable, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which nobody's real fleet takes part."""
    # Compiling every module at each start is nobody's normal case.
    foreign = ("RELAYQ_", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if k == BROKER or not k.startswith(foreign)}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def launch(
    argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=log.parent,
            env=environment() if env is None else env,
        )


def end(process: subprocess.Popen[bytes], within: float = 5.0) -> None:
    """End a process, kindly at first; what it started and left behind goes with it."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of these processes, their descendants and all that those waited for."""
    total = 0.0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(pid)
            for process in [top, *top.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += sum(process.cpu_times()[:4])
    return total


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process had resident; Linux only, elsewhere that of now."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(psutil.Process(pid).memory_info().rss)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Redis:
    """A Redis of the benchmark's own; `durable` has every write on disk before its answer."""

    def __init__(self, directory: Path, *, durable: bool) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise SystemExit("needs redis-server (apt install redis-server)")
        directory.mkdir()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": str(directory)}
        options |= {"appendonly": "yes" if durable else "no", "appendfsync": "always"}
        self._argv = [
            binary,
            *(word for key, value in options.items() for word in (f"--{key}", value)),
        ]
        self._log = directory / "log"
        self.connection = redis.Redis(port=self.port)
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        self.process = launch(self._argv, self._log)
        deadline = time.perf_counter() + 10
        while not self._answers():
            if time.perf_counter() > deadline:
                raise SystemExit(f"redis-server doesn't start: {self._log.read_text()}")
            clock.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash does; durable data are there when it is started again."""
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.connection.ping())
        except redis.ConnectionError:
            return False

    def used_bytes(self) -> int:
        """Return how much memory it holds."""
        return int(self.connection.info("memory")["used_memory"])


@contextmanager
def a_redis(directory: Path, *, durable: bool = False) -> Iterator[Redis]:
    """Run a Redis for a while."""
    server = Redis(directory, durable=durable)
    try:
        yield server
    finally:
        server.connection.close()
        server.kill()
