"""What this host keeps of the files that jobs took along, so that the next job has them at once.

A content is found by its sha256 and was checked when it came. What wasn't used longest goes first.
A job gets a copy of its own: what it writes into it is nobody else's business.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import IO

from relayq import clock

_CONTENT = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[0-9a-f]{64}\..*part")
#: As long as another job's download may stand still before this job fetches for itself.
_PATIENCE = 30.0
_LOOK = 0.2
_PIECE = 1 << 20
#: Have the new file share its blocks with the old one, where the file system can (Linux).
_FICLONE = 0x40049409


class Cache:
    """The contents in one directory, together not above `limit` bytes."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit

    def takes(self, size: int) -> bool:
        """Whether a content of this size is kept: it must fit twice on the disk."""
        if size > self._limit:
            return False
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize > 2 * size

    def find(self, sha256: str, size: int) -> str | None:
        """Return the path of a content that is here, as one just used."""
        path = os.path.join(self._directory, sha256)
        try:
            if os.stat(path).st_size != size:
                return None
            os.utime(path)
        except OSError:
            return None
        return path

    def have(self, sha256: str, size: int, fetch: Callable[[str], None]) -> IO[bytes] | None:
        """Open a content, fetched if it isn't here; of two jobs only one fetches it.

        None when another job's download stands still for too long.
        """
        with self._alone(sha256) as is_alone:
            if not is_alone:
                return None
            path = self.find(sha256, size)
            if is_new := path is None:
                path = os.path.join(self._directory, sha256)
                fetch(path)
            # Open, it outlasts what another job makes room for; `copy` closes it.
            content = open(path, "rb")  # noqa: SIM115
        if is_new:
            self.shrink(kept=sha256)
        return content

    def shrink(self, *, kept: str = "") -> None:
        """Remove what wasn't used longest, until the rest fits."""
        found = []
        for entry in os.scandir(self._directory):
            if _CONTENT.fullmatch(entry.name) or _PART.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    seen = entry.stat(follow_symlinks=False)
                    found.append((seen.st_mtime, seen.st_size, entry.name))
        total = sum(size for _, size, _ in found)
        for _, size, name in sorted(found):
            if total <= self._limit:
                return
            if not name.startswith(kept or "-") and self._drop(name):
                total -= size

    def _drop(self, name: str) -> bool:
        with self._try(name) as is_free:
            if is_free:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._directory, name))
        return is_free

    @contextmanager
    def _alone(self, sha256: str) -> Iterator[bool]:
        """Hold the right to fetch a content; False when its holder makes no progress."""
        seen, deadline = -1, monotonic() + _PATIENCE
        while True:
            with self._try(sha256) as is_free:
                if is_free:
                    yield True
                    return
            if (arrived := self._arrived(sha256)) != seen:
                seen, deadline = arrived, monotonic() + _PATIENCE
            if monotonic() >= deadline:
                yield False
                return
            clock.sleep(_LOOK)

    @contextmanager
    def _try(self, name: str) -> Iterator[bool]:
        # One lock for many contents, and never removed: who waits for a removed one waits alone.
        path = os.path.join(self._directory, f"{name[:2]}.lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            yield False
            return
        try:
            yield True
        finally:
            os.close(fd)

    def _arrived(self, sha256: str) -> int:
        with suppress(OSError):
            return sum(
                entry.stat().st_size
                for entry in os.scandir(self._directory)
                if entry.name.startswith(sha256)
            )
        return 0


def copy(source: str | IO[bytes], path: str) -> None:
    """Copy a file, or an open one and close it, by sharing its blocks where that can be done."""
    old = open(source, "rb") if isinstance(source, str) else source  # noqa: SIM115
    with old, open(path, "wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, _PIECE)
