"""A bench with a fork server and shims, and programs that are hard to end."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from relayq import clock
from relayq.host import process
from relayq.host.process import (
    ExitRecord,
    ForkServer,
    Permit,
    Shim,
    make_attempt_directory,
)
from relayq.model import output
from tests.waiting import until

ROOT = Path(__file__).parents[3]
# Every process of the tree of FAULTS: the leader, one that ignores SIGTERM, one in a session of
# its own, a daemon, and a daemon without environment. All of them show the mark as an argument.
TREE = """
import os, signal, sys
mark = sys.argv[1]
def start(prepare, environment=os.environ):
    if os.fork() == 0:
        prepare()
        os.execve("/bin/sleep", ["sleep", mark], environment)
def daemonise():
    os.setsid()
    if os.fork():
        os._exit(0)
start(lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
start(os.setsid)
start(daemonise)
start(daemonise, {})
signal.pause()
"""
CROWD = """
import os, signal, sys
for n in range(int(sys.argv[2])):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if n % 3 == 0:
            os.setsid()
        if n % 2 == 0 and os.fork():
            os._exit(0)
        os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
signal.pause()
"""
# Each process lives for 20 ms, in a session of its own; all end with the test's directory.
HOPPER = """
import os, sys, time
n = 0
while os.path.exists(sys.argv[1]):
    n += 1
    with open(sys.argv[2], "w") as file:
        file.write(str(n))
    if os.fork():
        time.sleep(0.02)
        os._exit(0)
    os.setsid()
"""
COUNTER = """
import sys, time
n = 0
while True:
    n += 1
    with open(sys.argv[1], "w") as file:
        file.write(str(n))
    time.sleep(0.001)
"""


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *map(str, arguments)]


class Bench:
    """A spool with a permit, a fork server, and marks by which processes are found again."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.forks = ForkServer()
        self.permit = Permit(spool / "permit")
        self.permit.extend_to(clock.boottime() + 3600)
        self.count = 0
        self.marks: list[str] = []

    def mark(self) -> str:
        """Return a duration for sleep(1) that no other process of this machine has."""
        mark = str(10**6 + int.from_bytes(os.urandom(6), "big"))
        self.marks.append(mark)
        return mark

    def prepare(self, *argv: str, **changes: Any) -> Path:
        self.count += 1
        job = f"JOB{os.getpid()}X{self.count}"
        tags = {"RELAYQ_JOB_ID": job, "RELAYQ_ATTEMPT": "1", "PATH": os.environ["PATH"]}
        command = {
            "argv": list(argv),
            "env": {**tags, **changes.pop("env", {})},
            "cwd": str(self.spool),
            "stdin": None,
            "timeout": None,
            "grace": 0.5,
            "linger": 0.5,
            "permit": str(self.spool / "permit"),
            "check": 0.1,
            "umask": 0o022,
            "job": job,
        }
        spool = changes.pop("spool", self.spool)
        return make_attempt_directory(spool, f"{job}.1.u", {**command, **changes})

    def start(self, *argv: str, **changes: Any) -> Shim:
        directory = self.prepare(*argv, **changes)
        self.forks.spawn(directory)
        return Shim(directory)

    def start_running(self, *argv: str, **changes: Any) -> Shim:
        shim = self.start(*argv, **changes)
        until(shim.run_facts, what="the leader to start")
        return shim

    def run(self, *argv: str, **changes: Any) -> tuple[ExitRecord, bytes, bytes]:
        return ended(self.start(*argv, **changes))

    def withdraw_permit(self) -> None:
        (self.spool / "permit").unlink()

    def clean_up(self) -> None:
        for directory in process.attempts(self.spool):
            shim = Shim(directory)
            shim.kill("clean-up", 0)
            shim.wait(10)
        self.forks.close()
        for mark in self.marks:
            for pid in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Return the living processes that have the mark as an argument."""
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        if mark in (one.info["cmdline"] or ()) and one.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(one.pid)
    return found


def frames(shim: Shim) -> list[output.Frame]:
    found, used = output.split((shim.directory / "output").read_bytes())
    assert used == (shim.directory / "output").stat().st_size
    return found


def ended(shim: Shim, within: float = 20) -> tuple[ExitRecord, bytes, bytes]:
    """Return the exit record, stdout and stderr of an attempt that comes to its end."""
    assert shim.wait(within)
    record = shim.exit_record()
    assert record is not None
    written = frames(shim)
    return record, output.only(written, output.STDOUT), output.only(written, output.STDERR)


def is_stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def number_in(path: Path) -> int:
    with suppress(FileNotFoundError, ValueError):
        return int(path.read_text())
    return 0
