"""Locks, files and detached processes, as the private broker and its worker need them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

from relayq import clock
from relayq.errors import RelayqError

LOCK_LIMIT = 330.0  # a broker may read its data for 300 s

# A fresh interpreter forks and ends, so that what it started is no child of ours: it leaves no
# zombie in a program that goes on, and a fork of a program with threads isn't safe. Signals that
# the program holds back just now are not its business: nobody could end it.
_DETACH = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, [])
pid = os.fork()
if pid:
    print(pid)
else:
    os.setsid()
    output = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file of the broker's folder, which is made when it isn't there."""
    try:
        # One by one: mkdir gives its mode to the last directory only.
        path.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        with path.open("ab") as file:
            if not wait_for(lambda: takes(file.fileno()), LOCK_LIMIT):
                raise RelayqError(f"another process has held {path} for {LOCK_LIMIT:g} s")
            yield
    except RelayqError:
        raise
    except OSError as error:
        raise RelayqError(f"the private broker and worker can't be used: {error}") from error


def takes(descriptor: int) -> bool:
    """Take the lock of an open file unless somebody holds it, or just looks at it."""
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Tell whether somebody holds the lock file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RelayqError(f"the private broker and worker can't be used: {error}") from error
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def detach(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    pass_fds: Sequence[int] = (),
) -> int:
    """Start a process in a session of its own, its output appended to the log."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _DETACH, log, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        cwd=cwd,
        env=env,
        pass_fds=pass_fds,
    )
    return int(done.stdout)


def is_gone(pid: int) -> bool:
    """Tell whether the process has ended; a zombie has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state == b"Z"


def wait_for(predicate: Callable[[], object], within: float) -> bool:
    """Return whether the predicate came true in time."""
    deadline = clock.boottime() + within
    while not predicate():
        if clock.boottime() > deadline:
            return False
        clock.sleep(0.01)
    return True


def end_of(log: Path, begin: int = 0) -> str:
    """Return the last lines of the log after `begin`, as the end of an error message."""
    try:
        lines = log.read_bytes()[begin:].decode(errors="replace").splitlines()[-10:]
    except FileNotFoundError:
        lines = []
    return "\n".join([f"the end of {log}:", *(f"  {line}" for line in lines or ["(nothing)"])])


def write(path: Path, content: bytes) -> None:
    """Replace a file at once, readable by its owner only; the caller holds the lock."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
