"""Where the file service has its contents: each under its sha256, complete or on its way in.

`<aa>/<sha256>` are complete and checked, `partial/<sha256>` on their way. Of a complete one the
time of its last use is its modification time. Nothing else is ever read or written: a name that
isn't a sha256 is refused before a path is made of it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relayq import clock
from relayq.contents import FULL, GrowingHash, sync_folder, write_all
from relayq.errors import NoRoom
from relayq.parsing import size_text

_SHA256 = re.compile(r"[0-9a-f]{64}")
#: How long an upload that nobody goes on with is kept.
PARTIAL_KEPT = 2 * 86_400.0
#: What is left of the disk: the broker is on this machine, and dies when it can't write.
_LEFT, _LEFT_SHARE = 10**9, 0.05
_PIECE = 1 << 20


class Mismatch(Exception):
    """What arrived isn't what it was to be; it was removed."""


@dataclass(frozen=True, slots=True)
class Content:
    """A complete content."""

    sha256: str
    path: Path
    size: int
    used_at: float


class Shelf:
    """The contents of one directory, of which one process is in charge."""

    def __init__(self, folder: Path, *, quota: int) -> None:
        self.folder = folder
        self.quota = quota
        self._partial = folder / "partial"
        self._partial.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        self._lock = threading.Lock()
        #: Uploads that somebody is sending just now, and the bytes that they may still bring.
        self._busy: dict[str, int] = {}
        self.used = sum(c.size for c in self.contents()) + sum(
            self.offset(name) for name in os.listdir(self._partial) if is_sha256(name)
        )

    def path(self, sha256: str) -> Path:
        """Return where a content is when it is complete."""
        if not is_sha256(sha256):
            raise ValueError(f"no sha256: {sha256!r}")
        return self.folder / sha256[:2] / sha256

    def contents(self) -> Iterator[Content]:
        """Yield the complete contents."""
        for entry in os.scandir(self.folder):
            if len(entry.name) != 2 or not entry.is_dir(follow_symlinks=False):
                continue
            for one in os.scandir(entry.path):
                if is_sha256(one.name) and one.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        facts = one.stat(follow_symlinks=False)
                        yield Content(one.name, Path(one.path), facts.st_size, facts.st_mtime)

    def open(self, sha256: str) -> tuple[int, int] | None:
        """Open a complete content, which counts as a use; returns descriptor and size, or None."""
        try:
            descriptor = os.open(self.path(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        os.utime(descriptor)
        return descriptor, os.fstat(descriptor).st_size

    def touch(self, sha256: str) -> int | None:
        """Note a use; returns the size, None when it isn't here complete."""
        opened = self.open(sha256)
        if opened is None:
            return None
        os.close(opened[0])
        return opened[1]

    def offset(self, sha256: str) -> int:
        """Return how many bytes of an upload are here."""
        try:
            return (self._partial / sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def is_busy(self, sha256: str) -> bool:
        """Tell whether somebody is sending it just now."""
        return sha256 in self._busy

    def begin(self, sha256: str, offset: int, total: int) -> Upload | None:
        """Take an upload on from `offset`; None while another one sends it.

        Raises NoRoom where `total` bytes would be too many for the quota or the disk.
        """
        self.path(sha256)
        with self._lock:
            if sha256 in self._busy:
                return None
            self._check_room(total - offset)
            self._busy[sha256] = total - offset
        try:
            return Upload(self, sha256, self._partial / sha256, offset, total)
        except BaseException:
            self.ended(sha256)
            raise

    def _check_room(self, more: int) -> None:
        promised = sum(self._busy.values())
        if self.used + promised + more > self.quota:
            raise NoRoom(
                f"the file service has {size_text(self.used + promised)} of files, and "
                f"{size_text(more)} more are over its quota of {size_text(self.quota)}",
                hint="relayq prune removes ended jobs and their files; "
                "or raise serve.quota on the broker's machine",
            )
        disk = shutil.disk_usage(self.folder)
        left = min(_LEFT, int(disk.total * _LEFT_SHARE))
        if disk.free - promised - more < left:
            raise NoRoom(
                f"the disk of the file service has {size_text(disk.free)} free, too little for "
                f"{size_text(more)} more: {size_text(left)} are left to the broker",
                hint="free space on the broker's machine, or move its RELAYQ_HOME to a larger disk",
            )

    def missing_room(self, more: int) -> int:
        """Return how many bytes would have to go for so many more, 0 if there is room."""
        disk = shutil.disk_usage(self.folder)
        with self._lock:
            taken = sum(self._busy.values()) + more
        left = min(_LEFT, int(disk.total * _LEFT_SHARE))
        return max(0, self.used + taken - self.quota, left + taken - disk.free)

    def came(self, sha256: str, count: int) -> None:
        """Count bytes of an upload that are on the disk now."""
        with self._lock:
            self.used += count
            if sha256 in self._busy:
                self._busy[sha256] -= count

    def ended(self, sha256: str) -> None:
        """Note that nobody is sending it any more."""
        with self._lock:
            self._busy.pop(sha256, None)

    def remove(self, content: Content) -> None:
        """Remove a complete content."""
        with suppress(FileNotFoundError):
            content.path.unlink()
            self.came("", -content.size)

    def remove_partials(self, *, older_than: float) -> int:
        """Remove uploads that nobody went on with; returns how many."""
        removed = 0
        for entry in list(os.scandir(self._partial)):
            with suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if facts.st_mtime < clock.now() - older_than and not self.is_busy(entry.name):
                    os.unlink(entry.path)
                    self.came("", -facts.st_size)
                    removed += 1
        return removed

    def sweep(
        self, *, keep: float, is_needed: Callable[[Content], bool], room: int = 0
    ) -> list[Content]:
        """Remove what was used last longer ago than `keep` and isn't needed; returns it.

        To make `room` for so many bytes younger ones go, too, the longest unused first.
        """
        removed: list[Content] = []
        now = clock.now()
        for content in sorted(self.contents(), key=lambda c: c.used_at):
            for_room = room > 0 and self.missing_room(room) > 0
            is_old = content.used_at < now - keep
            if not is_old and not for_room:
                break
            if is_needed(content):
                continue
            # An upload that found it complete since is a use.
            with suppress(FileNotFoundError):
                if content.path.stat().st_mtime == content.used_at:
                    self.remove(content)
                    removed.append(content)
        return removed


class Upload:
    """An upload that is being received; used by one thread at a time."""

    def __init__(self, shelf: Shelf, sha256: str, path: Path, offset: int, total: int) -> None:
        self._shelf = shelf
        self._sha256 = sha256
        self._path = path
        self.offset = offset
        self.total = total
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        if surplus := os.fstat(self._descriptor).st_size - offset:
            os.ftruncate(self._descriptor, offset)
            shelf.came("", -surplus)
        self._hash = GrowingHash(self._descriptor)
        self._hash.follow(offset)

    def receive(self, connection: socket.socket, early: bytes, length: int) -> None:
        """Write `early` and what else comes of `length` bytes; a cut ends it without an error."""
        self.add(memoryview(early))
        left, buffer, filled = length - len(early), memoryview(bytearray(_PIECE)), 0
        try:
            # What comes at a time is small: whole pieces spare disk and hash most of the calls.
            while left > 0 and (count := connection.recv_into(buffer[filled:][:left])):
                left -= count
                filled += count
                if filled == _PIECE or not left:
                    self.add(buffer[:filled])
                    filled = 0
        except ConnectionError:
            pass
        finally:
            self.add(buffer[:filled])

    def add(self, piece: memoryview) -> None:
        """Append bytes."""
        try:
            write_all(self._descriptor, piece, self.offset)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise NoRoom(
                f"the disk of the file service is full: {(error.strerror or '').lower()}",
                hint="free space on the broker's machine",
            ) from error
        self.offset += len(piece)
        self._shelf.came(self._sha256, len(piece))
        self._hash.follow(self.offset)

    def finish(self) -> None:
        """Check what arrived and give it its name; raises Mismatch when it is something else."""
        if (found := self._hash.result()) != self._sha256:
            self.discard()
            raise Mismatch(f"what arrived has sha256 {found}")
        os.fsync(self._descriptor)
        target = self._shelf.path(self._sha256)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        os.replace(self._path, target)
        sync_folder(target.parent)

    def discard(self) -> None:
        """Remove what arrived."""
        os.unlink(self._path)
        self._shelf.came("", -self.offset)

    def close(self) -> None:
        """Let others go on with it."""
        self._hash.stop()
        os.close(self._descriptor)
        self._shelf.ended(self._sha256)


def is_sha256(text: str) -> bool:
    """Tell whether a text is a sha256 as it is written here."""
    return _SHA256.fullmatch(text) is not None
