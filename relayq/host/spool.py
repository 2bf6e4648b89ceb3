"""The files of an attempt's directory, as the worker and the shim both know them.

The worker makes the directory; the shim lives in it, and holds the lock while it lives. Standard
library only, and no pathlib: the shim imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from typing import Any

from relayq import clock

COMMAND = "command.json"  # worker: what to run, complete
LOCK = "lock"  # shim: flock(LOCK_EX) as long as it lives; its pid inside
RUN = "run.json"  # shim: the pids, once the leader was started
OUTPUT = "output"  # shim: frames
CONTROL = "control.json"  # worker: kill, freeze, thaw
SIZE = "size.json"  # worker: rows and columns of the terminal
RESERVED = "exit.reserved"  # shim: room for the exit record
EXIT = "exit"  # shim: the exit record
SWEPT = "swept"  # worker: a shim that comes too late starts nothing here

RECORD_SIZE = 1024
_SMALL = 128
_PIECE = 65_536

Facts = dict[str, Any]


def load(path: str) -> Facts | None:
    """Return the JSON object in a file; None when there is none that can be read."""
    try:
        value = json.loads(_read(path))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _read(path: str) -> bytes:
    # Half the time of open(), which asks for much that a small file doesn't need.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = piece = os.read(fd, _PIECE)
        while piece:
            piece = os.read(fd, _PIECE) if len(piece) == _PIECE else b""
            raw += piece
    finally:
        os.close(fd)
    return raw


def write_new(path: str, value: Facts) -> None:
    """Write a JSON object that nobody reads before it is there; one cut short is none."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, json.dumps(value).encode())
    finally:
        os.close(fd)


def replace(path: str, value: Facts) -> None:
    """Write a JSON object so that a reader sees the old one or the new one, whole."""
    fresh = f"{path}.tmp"
    write_new(fresh, value)
    os.rename(fresh, path)


def overwrite(path: str, value: Facts) -> None:
    """Write a small JSON object over the one in a file, in its own room and in one go."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, json.dumps(value).encode().ljust(_SMALL), 0)
    finally:
        os.close(fd)


def write_all(fd: int, raw: bytes) -> None:
    """Write every byte; a disk that fills up on the way is an OSError."""
    left = memoryview(raw)
    while left:
        written = os.write(fd, left)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left = left[written:]


def read_line(fd: int) -> bytes:
    """Return the next line that comes through a pipe, empty when there is none to come."""
    raw = b""
    while not raw.endswith(b"\n"):
        piece = os.read(fd, _PIECE)
        if not piece:
            return b""
        raw += piece
    return raw


def take_lock(directory: str) -> int | None:
    """Take the lock for good and return its descriptor; None when somebody else keeps it."""
    fd = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(20):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A look at whether the shim lives (`is_held`) holds it for some microseconds, too.
            clock.sleep(0.0025)
        else:
            return fd
    os.close(fd)
    return None


def is_held(directory: str) -> bool:
    """Say whether a shim holds the lock of this attempt."""
    try:
        fd = os.open(os.path.join(directory, LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at once don't take each other for a shim.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # A child forked meanwhile shares this lock: closing our descriptor wouldn't give it back.
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write_holder(lock: int) -> None:
    """Write this process's id into the lock file."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def holder(directory: str) -> int | None:
    """Return the process id that the last holder of the lock wrote into it."""
    try:
        return int(_read(os.path.join(directory, LOCK)))
    except (OSError, ValueError):
        return None


def is_closed(directory: str) -> bool:
    """Say whether nothing may be started here any more."""
    return any(os.path.exists(os.path.join(directory, name)) for name in (EXIT, SWEPT))


def reserve(directory: str) -> int:
    """Return the descriptor of the file with room for the exit record; the caller syncs it.

    A new file gets no room on a full disk, one that has its blocks does: without this a success
    on a full disk would be lost.
    """
    path = os.path.join(directory, RESERVED)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    write_all(fd, b"{}".ljust(RECORD_SIZE))
    return fd


def settle(directory: str, reserved: int, record: Facts) -> None:
    """Write the exit record into its reserved room, and name it."""
    os.pwrite(reserved, encode(record).ljust(RECORD_SIZE), 0)
    os.fsync(reserved)
    os.rename(os.path.join(directory, RESERVED), os.path.join(directory, EXIT))


def encode(record: Facts) -> bytes:
    """Return the exit record as JSON, its error shortened (and marked so) to fit the room."""
    raw = json.dumps(record).encode()
    for length in (600, 300, 50):
        if len(raw) <= RECORD_SIZE:
            break
        raw = json.dumps({**record, "error": f"{record['error'] or ''!s:.{length}}..."}).encode()
    return raw


def unstarted(reason: str, error: str | None) -> Facts:
    """Return the exit record of an attempt whose command never ran."""
    return {
        "status": "unstarted",
        "code": None,
        "signal": None,
        "reason": reason,
        "error": error,
        "started_at": None,
        "ended_at": clock.now(),
        "run_time": 0.0,
        "output_bytes": 0,
        "dropped_bytes": 0,
    }
