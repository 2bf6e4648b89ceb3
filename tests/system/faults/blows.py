"""What is done to hosts and looked for on them: sleep, power cuts, reboots."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from relayq.errors import Conflict
from relayq.results import JobResult
from tests.system.faults import scene as scenes
from tests.system.faults.journal import Journal, Note, processes
from tests.system.faults.scene import Host
from tests.waiting import until


@contextmanager
def asleep(*pids: int) -> Iterator[None]:
    """Stop these processes for the length of a block."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def everything_of(host: Host) -> list[int]:
    """Return the worker, its fork server, the shims and the jobs: those that work first."""
    ids = {directory.name.partition(".")[0] for directory in host.attempts()}
    ours = [
        process.pid
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("RELAYQ_HOME") == str(host.home)
    ]
    return [host.pid, *(pid for pid in ours if pid != host.pid), *processes(ids)]


def crash(host: Host) -> None:
    """End everything of a host at once, as a power cut does."""
    pids = everything_of(host)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    host.end(signal.SIGKILL)
    until(lambda: not scenes.kill_all_of(host.home), what=f"{host.name} to be gone")


def boot(host: Host, boot_id: Path) -> None:
    """Start a host's worker as if the machine had started anew."""
    boot_id.write_text(f"{secrets.token_hex(16)}\n")
    bound = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    worker = [sys.executable, "-m", "relayq.worker"]
    with (host.home / "test-worker.log").open("ab") as log:
        host.worker = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", bound, boot_id, *worker],
            cwd="/",
            env=host.environ,
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    until(host.is_online, within=20, what=lambda: f"{host.name} to register:\n{host.log}")


def frozen(host: Host, result: JobResult) -> bool:
    """Tell whether the process of a job on this host is stopped."""
    [directory] = host.attempts(result.id)
    leader = json.loads((directory / "run.json").read_text())["leader"]
    return psutil.Process(leader).status() == psutil.STATUS_STOPPED


def until_state(result: JobResult, state: str, *, within: float = 25.0) -> None:
    """Wait for a job to be in a state."""
    until(lambda: result.state == state, within=within, what=lambda: f"{state}: {result.record}")


def can_retry(result: JobResult) -> bool:
    """Retry a job, and tell whether that was accepted."""
    try:
        result.retry()
    except Conflict:
        return False
    return True


def stirred(journal: Journal, result: JobResult, *, since: float) -> list[Note]:
    """Return what the first attempt of a job did after an instant."""
    return [n for n in journal.notes(id=result.id) if n.attempt == 1 and n.at > since + 0.05]


def taken_over(journal: Journal, result: JobResult) -> bool:
    """Tell whether the second attempt of a job has run for half a second."""
    return sum(note.attempt == 2 for note in journal.notes("tick", id=result.id)) > 5
