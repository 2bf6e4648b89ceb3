"""What a job wrote, on its way to the disk. Standard library only: the shim imports this module."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol

from relayq import clock
from relayq.host import spool
from relayq.model.output import MAX_FRAME, frame


class Hider(Protocol):
    """What hides a part of an output; it may hold back what it can't judge yet."""

    def feed(self, channel: int, data: bytes) -> bytes:
        """Return what may be written now."""

    def rest(self, channel: int) -> bytes:
        """Return what was held back, at the end."""


class Output:
    """The job's output on disk, whole frames only."""

    def __init__(self, path: str, limit: int | None = None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self._is_torn = False
        self._room = limit
        #: Set for a job that has secrets.
        self.hider: Hider | None = None
        #: Whether the job wrote more than it may; what is too much isn't kept.
        self.is_over = False
        self.size = 0
        self.dropped = 0

    def append(self, channel: int, data: bytes) -> None:
        """Append a frame; drop and count it when the disk has no room."""
        if self.hider is None:
            self._append(channel, data)
        else:
            self._append_all(channel, self.hider.feed(channel, data))

    def flush(self, channel: int) -> None:
        """Append what was held back."""
        if self.hider is not None:
            self._append_all(channel, self.hider.rest(channel))

    def _append_all(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data), MAX_FRAME):
            self._append(channel, data[start : start + MAX_FRAME])

    def _append(self, channel: int, data: bytes) -> None:
        if self._room is not None:
            self.is_over = self.is_over or len(data) > self._room
            data = data[: self._room]
            self._room -= len(data)
            if not data:
                return
        try:
            if self._is_torn:
                os.ftruncate(self._fd, self.size)
            self._is_torn = True
            raw = frame(channel, clock.now(), data)
            spool.write_all(self._fd, raw)
        except OSError:
            self.dropped += len(data)
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
                self._is_torn = False
        else:
            self._is_torn = False
            self.size += len(raw)
