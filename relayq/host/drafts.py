"""A file in the making: beside its final name under a temporary one, and never half of it there.

While a draft lives, a small process guards it: when its maker dies, however that is, the guard
removes what was made so far. What even that can't (a power cut) the next draft there does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from relayq import clock
from relayq.errors import RelayqError

_DRAFT = re.compile(r"\..*\.([0-9a-z]+)-(\d+)\.part(\.[^.]*)?", re.DOTALL)
#: A draft that nobody holds and that nobody has written to for so long is left over.
_LEFT_OVER = 3600.0
_LONGEST_STEM = 60
#: The file's attribute that says which job made it.
_MADE_BY = b"user.relayq.job"
#: How long a guard looks whether a program that is just being ended makes the file again.
_AFTERWARDS = 1.0
#: What a file system says that has no links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class Draft:
    """The draft of one file, for a `with`: gone at its end, unless it was `settle`d."""

    def __init__(self, final: str, *, job: str, attempt: int) -> None:
        self.final = final
        directory, name = os.path.split(final)
        stem, ending = os.path.splitext(name)
        self._directory = directory or "."
        self._job = _plain(job)
        # A long name with more in it might be none any more.
        self.path = os.path.join(
            self._directory, f".{stem[:_LONGEST_STEM]}.{self._job}-{attempt}.part{ending}"
        )
        self._fd = -1
        self._guard = self._word = -1

    def __enter__(self) -> Draft:
        self._sweep()
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a share without locks
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._begin_guard()
        return self

    def __exit__(
        self,
        sort: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self._fd)
        with suppress(OSError):
            os.write(self._word, b"x")
        os.close(self._word)
        with suppress(ChildProcessError):
            os.waitpid(self._guard, 0)

    def sync(self) -> None:
        """Have all of it on the disk, which may take a while."""
        with suppress(OSError, AttributeError):  # not every file system can, nor macOS
            os.setxattr(self.path, _MADE_BY, self._job.encode())
        os.fsync(self._fd)

    def settle(self, *, overwrite: bool) -> None:
        """Give the file its final name, at once and whole."""
        if overwrite or is_made_by(self.final, self._job):
            os.replace(self.path, self.final)
        else:
            self._link()
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            with suppress(OSError):  # not on every share
                os.fsync(directory)
        finally:
            os.close(directory)

    def _link(self) -> None:
        try:
            os.link(self.path, self.final)
        except FileExistsError:
            raise exists(self.final) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(self.final):
                raise exists(self.final) from error
            os.rename(self.path, self.final)

    def _sweep(self) -> None:
        """Remove drafts that nobody is making any more."""
        with suppress(OSError):
            for name in os.listdir(self._directory):
                found = _DRAFT.fullmatch(name)
                if found is not None:
                    _remove_left_over(os.path.join(self._directory, name), found[1] == self._job)

    def _begin_guard(self) -> None:
        reader, self._word = os.pipe()
        self._guard = os.fork()
        if self._guard == 0:
            _guard(reader, self.path)
        os.close(reader)


def _plain(job: str) -> str:
    return re.sub(r"[^0-9a-z]", "", job.lower()) or "local"


def is_made_by(path: str, job: str) -> bool:
    """Tell whether this job made a file, in an attempt whose end was never heard of, say."""
    try:
        return os.getxattr(path, _MADE_BY) == _plain(job).encode()
    except (OSError, AttributeError):
        return False


def exists(path: str) -> RelayqError:
    """Return the error for an output that is there already."""
    return RelayqError(f"{path} exists", hint="another name, or overwrite it: --overwrite")


def _remove_left_over(path: str, is_own: bool) -> None:
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Of another job only what is old: a share may not know who holds what.
            if is_own or clock.now() - os.fstat(fd).st_mtime > _LEFT_OVER:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
        finally:
            os.close(fd)


def _guard(reader: int, path: str) -> NoReturn:
    """Wait for the maker's word or its death, and remove the draft after that."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        first = 3
        os.closerange(first, reader)
        os.closerange(reader + 1, 1024)
        if os.read(reader, 1) == b"":
            until = clock.boottime() + _AFTERWARDS
            while clock.boottime() < until:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                clock.sleep(0.05)
    finally:
        os._exit(0)
