"""What a file holds: its sha256 and size, and a file that is filled bit by bit.

Standard library only, for it also runs in a job's own process tree.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO

from relayq.errors import FileChanged, NoRoom, TransferFailed

#: Called with the bytes that are done and their total.
Progress = Callable[[int, int], None]

_PIECE = 1 << 20
#: What the system says where there is no room.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Digest:
    """What a content is, whatever its name."""

    sha256: str
    size: int


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[FileIO]:
    """Open a file whose content is to be sent."""
    try:
        file = FileIO(path)
    except OSError as error:
        raise TransferFailed(
            f"{os.fspath(path)} can't be read: {(error.strerror or str(error)).lower()}",
            hint="look whether it is still there, and whether you may read it",
        ) from error
    with file:
        yield file


def read_file(path: str | os.PathLike[str], *, limit: int) -> tuple[Digest, bytes]:
    """Return what a small file holds; raises FileChanged when it has grown beyond the limit."""
    with reading(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise changed(path)
    return Digest(hashlib.sha256(content).hexdigest(), len(content)), content


def hash_file(path: str | os.PathLike[str], progress: Progress | None = None) -> Digest:
    """Read a file and return what it holds; raises FileChanged when it is written to meanwhile."""
    with reading(path) as file:
        before = os.fstat(file.fileno())
        sha256, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_PIECE))
        while count := file.readinto(buffer):
            sha256.update(buffer[:count])
            size += count
            if progress is not None:
                progress(size, max(size, before.st_size))
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise changed(path)
    return Digest(sha256.hexdigest(), size)


def changed(path: str | os.PathLike[str]) -> FileChanged:
    """Return the error of a file that is written to."""
    return FileChanged(
        f"{os.fspath(path)} was changed while it was sent",
        hint="submit again when nothing writes to it",
    )


class GrowingHash:
    """The sha256 of a file that is being written, made beside that on another processor.

    It reads what was written from the file, so what was there before a cut is part of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._is_last = False
        self._error: OSError | None = None
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name="hash")
        self._thread.start()

    def follow(self, size: int) -> None:
        """Say that so many bytes of the file are there."""
        with self._news:
            self._size = size
            self._news.notify()

    def result(self) -> str:
        """Wait until all of it is read, and return its sha256."""
        self._end()
        if self._error is not None:
            raise self._error
        return self._sha256.hexdigest()

    def stop(self) -> None:
        """End without a result; the file may be closed afterwards."""
        self.follow(0)
        self._end()

    def _end(self) -> None:
        with self._news:
            self._is_last = True
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        done, buffer = 0, memoryview(bytearray(_PIECE))
        while True:
            with self._news:
                while self._size <= done and not self._is_last:
                    self._news.wait()
                left = self._size - done
            if left <= 0:
                return
            try:
                count = os.preadv(self._descriptor, [buffer[: min(left, _PIECE)]], done)
            except OSError as error:
                self._error = error
                return
            if not count:  # somebody truncated it: the sum will be wrong
                return
            self._sha256.update(buffer[:count])
            done += count


class Part:
    """A file on its way in."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._begin()

    def _begin(self) -> None:
        self.size = os.fstat(self._descriptor).st_size
        self._hash = GrowingHash(self._descriptor)
        self._hash.follow(self.size)

    def write(self, piece: memoryview) -> None:
        """Append bytes."""
        with disk(self.path):
            write_all(self._descriptor, piece, self.size)
        self.size += len(piece)
        self._hash.follow(self.size)

    def is_whole(self, digest: Digest) -> bool:
        """Tell whether all is there, and is this content; after it, begin anew or finish."""
        with disk(self.path):
            return Digest(self._hash.result(), self.size) == digest

    def begin_anew(self) -> None:
        """Drop what has arrived."""
        self.stop()
        with disk(self.path):
            os.ftruncate(self._descriptor, 0)
            self._begin()

    def stop(self) -> None:
        """Look at it no more."""
        self._hash.stop()

    def finish(self, path: str, mode: int | None) -> None:
        """Give the file its name."""
        with disk(self.path):
            if mode is not None:
                os.fchmod(self._descriptor, mode & 0o777)
            os.fsync(self._descriptor)
            os.replace(self.path, path)
            sync_folder(os.path.dirname(path) or ".")


def write_all(descriptor: int, piece: memoryview, offset: int) -> None:
    """Write a piece at its place in a file, however often the system takes less."""
    while piece:
        count = os.pwrite(descriptor, piece, offset)
        piece, offset = piece[count:], offset + count


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Have a directory's names on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_part(target: str, digest: Digest, mode: int | None) -> Iterator[Part]:
    """Open the file that the content arrives in; another call that does the same is waited for."""
    path = f"{target}.{digest.sha256[:8]}.part"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with disk(path):
        while True:
            descriptor = os.open(path, flags, 0o666 if mode is None else 0o600 | mode & 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_same(descriptor, path):
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        if os.fstat(descriptor).st_size > digest.size:
            os.ftruncate(descriptor, 0)
    part = Part(path, descriptor)
    try:
        yield part
    except NoRoom:
        # It would only keep the disk full.
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        part.stop()
        if not os.fstat(descriptor).st_size and _is_same(descriptor, path):
            os.unlink(path)
        os.close(descriptor)


def _is_same(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


@contextmanager
def disk(path: str) -> Iterator[None]:
    """Turn what the disk says into an error that isn't tried again."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoRoom(
                f"no room for {path}: {(error.strerror or '').lower()}",
                hint="free space on this disk, then try again",
            ) from error
        raise TransferFailed(
            f"{path} can't be written: {(error.strerror or str(error)).lower()}",
            hint="choose another place for it",
        ) from error


def write_content(path: str | os.PathLike[str], content: bytes, mode: int | None) -> None:
    """Write a small file, which appears under its name when it is whole, and replaces."""
    target = os.fspath(path)
    digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
    with open_part(target, digest, mode) as part:
        part.begin_anew()
        part.write(memoryview(content))
        part.finish(target, mode)
