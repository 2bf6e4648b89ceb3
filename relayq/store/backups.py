"""A copy of the whole data set, over a connection, while the broker goes on.

Redis sends a snapshot of one instant to whoever says SYNC, as it does to a replica. The file is
what the append-only file of Redis 6.2 and 7 may begin with, so it can be put in its place.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from relayq.errors import RelayqError
from relayq.store.scripts import broker_errors

_PIECE = 1 << 16
_MARK = 40


def write_backup(connection: redis.Redis, path: Path, *, patience: float = 300.0) -> int:
    """Write a snapshot of Redis into a file that only its owner reads; returns its bytes.

    The file is there when it is whole and on the disk, and not before. `patience` bounds every
    silence of Redis, which forks first.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            size = _receive(connection, file.write, patience)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        if isinstance(error, RelayqError):
            raise
        raise RelayqError(
            f"can't write the backup: {error}", hint="give a file on a disk with room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return size


def _receive(connection: redis.Redis, write: Callable[[bytes], object], patience: float) -> int:
    pool: Any = connection.connection_pool
    with broker_errors():
        link = pool.get_connection()
    try:
        with broker_errors():
            # A bare SYNC, since PSYNC would have to be answered for ever after.
            link.send_command("SYNC")
            stream = link._sock
            stream.settimeout(patience)
            return _Snapshot(stream).copy(write)
    except TimeoutError as error:
        raise RelayqError(
            f"the broker sent nothing of its data for {patience:g} s", hint="relayq doctor"
        ) from error
    finally:
        # Redis takes this connection for a replica's from now on.
        with suppress(redis.exceptions.RedisError, OSError):
            link.disconnect()
        pool.release(link)


class _Snapshot:
    """The answer to SYNC: newlines while Redis forks, then `$<length>` or `$EOF:<mark>`."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._rest = b""

    def copy(self, write: Callable[[bytes], object]) -> int:
        """Write the snapshot, and return its size."""
        head = self._line()
        if not head.startswith(b"$"):
            said = head.decode(errors="replace")
            raise RelayqError(
                f"the broker gives no copy of its data: {said}",
                hint="only its owner may have it: type this on the broker's machine",
            )
        if head.startswith(b"$EOF:"):
            return self._until(head[5 : 5 + _MARK], write)
        return self._exactly(int(head[1:]), write)

    def _line(self) -> bytes:
        while True:
            line, separator, rest = self._rest.lstrip(b"\n").partition(b"\n")
            if separator:
                self._rest = rest
                return line.rstrip(b"\r")
            self._rest += self._piece()

    def _piece(self) -> bytes:
        piece = self._stream.recv(_PIECE)
        if not piece:
            raise RelayqError(
                "the broker broke off in the middle of its data", hint="relayq broker logs"
            )
        return piece

    def _exactly(self, size: int, write: Callable[[bytes], object]) -> int:
        left = size
        while left:
            piece, self._rest = (self._rest or self._piece())[:left], b""
            write(piece)
            left -= len(piece)
        return size

    def _until(self, mark: bytes, write: Callable[[bytes], object]) -> int:
        """Write what comes before the mark; it may be split between two pieces."""
        size, held = 0, self._rest
        while not held.endswith(mark):
            ready, held = held[:-_MARK], held[-_MARK:]
            write(ready)
            size += len(ready)
            held += self._piece()
        write(held[:-_MARK])
        return size + len(held) - _MARK
