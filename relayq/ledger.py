"""An audit trail on the disk: files by month, lines that are chained, and its head beside them.

Any number of processes may append. Each line is written in one call before what it tells of goes
on, and brought to the disk a few seconds later: a killed process loses nothing, a power cut those
seconds. `head` is a small file that is overwritten in its own room: it knows what the files should
hold, and counts what a full disk had no room for. What is missing is said by the next line.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from relayq import clock
from relayq.model.audit import (
    CUT,
    LONGEST,
    OPENED,
    PRUNED,
    START,
    Chain,
    Entry,
    Finding,
    Head,
    Line,
    line,
    parsed,
    torn_digest,
)
from relayq.privileges import as_owner

log = logging.getLogger(__name__)

FOLDER = "audit"
_HEAD = "head"
_HEAD_SIZE = 256
_SUFFIX = ".jsonl"
#: Read from the end of a file at a time, to find its last entry.
_PIECE = 16 * LONGEST


def host_ledger(home: Path) -> Ledger:
    """Return what a host's worker notes of the jobs that run there."""
    return Ledger(home / FOLDER / "host")


def fleet_ledger(home: Path) -> Ledger:
    """Return the fleet's events, as the broker's machine keeps them."""
    return Ledger(home / FOLDER / "fleet")


class _State(NamedTuple):
    """What `head` holds: the chain's, the file and its size with it, and what found no room."""

    head: Head = Head()
    file: str = ""
    size: int = 0
    missed: int = 0

    def encoded(self) -> bytes:
        # Twice as fast as json: it is written with every entry.
        number, digest = self.head
        return f"{number} {digest} {self.size} {self.missed} {self.file}".encode().ljust(_HEAD_SIZE)

    @classmethod
    def decoded(cls, raw: bytes) -> _State | None:
        try:
            number, digest, size, missed, *file = raw.decode("ascii").split()
            return cls(Head(int(number), digest), "".join(file), int(size), int(missed))
        except ValueError:
            return None


class Ledger:
    """One audit trail, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._head_fd: int | None = None
        self._fd: int | None = None
        self._state = _State()
        #: What `head` held when it was last read or written.
        self._known = b""
        self._month = ""
        #: The span of the month that the last entry was in.
        self._begins = self._ends = 0.0
        #: What found no room, and couldn't be noted in `head` either.
        self._unsaid = 0
        self._is_dirty = False
        self._is_failing = False

    @property
    def head(self) -> Head:
        """The end of the chain as far as this process knows; that of nothing before it wrote."""
        return self._state.head

    def append(self, what: str, **facts: Any) -> bool:
        """Write an entry; False when there is no room for it, which the next one that fits says."""
        return self.append_all([(what, facts)])

    def append_all(
        self, entries: Sequence[tuple[str, Mapping[str, Any]]], *, come_again: bool = False
    ) -> bool:
        """Write entries, all or none of them; those that `come_again` aren't said to be missing."""
        with self._lock:
            try:
                head = self._held()
                try:
                    self._append(entries, os.pread(head, _HEAD_SIZE, 0))
                finally:
                    fcntl.flock(head, fcntl.LOCK_UN)
            except OSError as error:
                self._miss(0 if come_again else len(entries), error)
                return False
            self._is_failing = False
            return True

    def sync(self) -> None:
        """Bring what was written to the disk."""
        with self._lock:
            if not self._is_dirty or self._fd is None:
                return
            self._is_dirty = False
            # The file may be closed by then, which must not wait for a slow disk.
            descriptor = os.dup(self._fd)
        try:
            os.fsync(descriptor)
        except OSError as error:
            log.warning("the audit trail %s isn't safe on the disk: %s", self.folder, error)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Bring all to the disk, and let go of it."""
        self.sync()
        with self._lock:
            self._forget()

    def prune(self, *, older_than: float) -> int:
        """Remove files whose last change is that many seconds ago, but for the newest two.

        An entry says so before; returns how many were removed.
        """
        old = []
        with as_owner():
            for path in self.files()[:-2]:
                if clock.now() - path.stat().st_mtime <= older_than:
                    break
                old.append(path)
        if not old:
            return 0
        head, _ = _end(old)
        names = [path.name for path in old]
        if not self.append(PRUNED, through=head.number, files=names):
            return 0
        with as_owner():
            for path in old:
                path.unlink(missing_ok=True)
        return len(old)

    # To read it

    def files(self) -> list[Path]:
        """Return its files, in the order of the chain."""
        with as_owner():
            try:
                names = os.listdir(self.folder)
            except FileNotFoundError:
                return []
        return [self.folder / name for name in sorted(names) if name.endswith(_SUFFIX)]

    def entries(self) -> Iterator[Entry]:
        """Yield the entries from the first on, up to where the chain is broken."""
        _, sizes = self._snapshot()
        yield from self._read(sizes, Chain())

    def _read(self, sizes: Sequence[tuple[Path, int]], chain: Chain) -> Iterator[Entry]:
        for path, size in sizes:
            with as_owner():
                file = path.open("rb")
            with file:
                yield from chain.read(path.name, _lines(file, size))
            if chain.found.broken is not None:
                return

    def verify(self, known: Head | None = None) -> Finding:
        """Read all of it, and say whether it is whole, and leads to a head that is known."""
        state, sizes = self._snapshot()
        chain = Chain(known)
        for _ in self._read(sizes, chain):
            pass
        return chain.end(None if state is None else state.head)

    def tail(self, length: int) -> Iterator[bytes]:
        """Yield the lines in the last so many bytes of each of its newest two files."""
        for path in self.files()[-2:]:
            with as_owner():
                file = path.open("rb")
            with file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - length))
                yield from file

    def newest(self) -> Entry | None:
        """Return the last entry that is whole."""
        for path in reversed(self.files()):
            if (entry := _last(path)[0]) is not None:
                return entry
        return None

    def _snapshot(self) -> tuple[_State | None, list[tuple[Path, int]]]:
        """Return what is noted of it, and how long each file is, at one moment."""
        if not self.files():
            path = self.folder / _HEAD
            with as_owner():
                raw = path.read_bytes() if path.exists() else b""
            return _State.decoded(raw), []
        with as_owner(), (self.folder / _HEAD).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            file.seek(0)
            state = _State.decoded(file.read(_HEAD_SIZE))
            return state, [(path, path.stat().st_size) for path in self.files()]

    # To write it

    def _held(self) -> int:
        """Hold it alone among all processes; return the descriptor of its head, to let go of it."""
        if self._fd is not None and os.fstat(self._fd).st_nlink == 0:
            self._forget()  # somebody removed the folder
        if self._head_fd is None:
            with as_owner():
                os.makedirs(self.folder, mode=0o700, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._head_fd = os.open(self.folder / _HEAD, flags, 0o600)
        fcntl.flock(self._head_fd, fcntl.LOCK_EX)
        return self._head_fd

    def _append(self, entries: Sequence[tuple[str, Mapping[str, Any]]], raw: bytes) -> None:
        at = clock.now()
        if self._fd is None or raw != self._known or self._is_changed():
            self._catch_up(raw, at)
        self._turn(at)
        if missed := self._state.missed + self._unsaid:
            reason = "there was no room, or the disk failed"
            self._write([line(self._state.head, at, CUT, {"reason": reason, "missed": missed})])
            self._unsaid = 0
            self._note(self._state._replace(missed=0))
        lines: list[Line] = []
        head = self._state.head
        for what, facts in entries:
            lines.append(line(head, at, what, facts))
            head = lines[-1].head
        self._write(lines)

    def _is_changed(self) -> bool:
        """Whether the file isn't as it was left: who wrote to it died before it could say so."""
        assert self._fd is not None
        return os.fstat(self._fd).st_size != self._state.size

    def _write(self, lines: Sequence[Line], *, before: bytes = b"") -> None:
        """Write lines in one go, or nothing of them."""
        assert self._fd is not None
        raw = before + b"".join(one.raw for one in lines)
        written = os.write(self._fd, raw)
        if written != len(raw):
            os.ftruncate(self._fd, self._state.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._is_dirty = True
        self._note(self._state._replace(head=lines[-1].head, size=self._state.size + len(raw)))

    def _note(self, state: _State) -> None:
        assert self._head_fd is not None
        self._state, self._known = state, state.encoded()
        os.pwrite(self._head_fd, self._known, 0)

    def _miss(self, count: int, error: OSError) -> None:
        """Count what found no room, on the disk if that can be: its room there is its own."""
        if not self._is_failing:
            log.warning("the audit trail %s can't be written: %s", self.folder, error)
        self._is_failing = True
        self._unsaid += count
        if self._fd is None or self._head_fd is None:
            return
        with suppress(OSError):
            head = self._held()
            try:
                if os.pread(head, _HEAD_SIZE, 0) == self._known:
                    self._note(self._state._replace(missed=self._state.missed + self._unsaid))
                    self._unsaid = 0
            finally:
                fcntl.flock(head, fcntl.LOCK_UN)

    def _turn(self, at: float) -> None:
        """Begin a new file with a new month, whichever way the clock went."""
        is_begun = self._fd is not None and self._state.size > 0
        if is_begun and self._begins <= at < self._ends:
            return
        month, self._begins, self._ends = _month(at)
        if self._fd is None or month != self._month:
            self._begin(month)
        elif is_begun:
            return
        # Also in a file that was made by who could write nothing into it.
        head = self._state.head
        self._write([line(head, at, OPENED, {"before": head.hash})])

    def _begin(self, month: str) -> None:
        """Make the file of a month, after all others."""
        names = [path.name for path in self.files()]
        number = int(names[-1].partition("-")[0]) + 1 if names else 1
        name = f"{number:05}-{month}{_SUFFIX}"
        ends = self._ends
        self._use(name, os.O_EXCL)
        self._ends = ends
        self._state = self._state._replace(file=name, size=0)

    def _use(self, name: str, more: int = 0) -> None:
        """Write to that file from now on."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | more
        with as_owner():
            descriptor = os.open(self.folder / name, flags, 0o600)
        if self._fd is not None:
            os.fsync(self._fd)
            os.close(self._fd)
        self._fd, self._ends = descriptor, 0.0
        self._month = name.partition("-")[2].removesuffix(_SUFFIX)

    def _catch_up(self, raw: bytes, at: float) -> None:
        """Go on where another process, or one that was killed, left it."""
        noted = _State.decoded(raw)
        files = self.files()
        is_first = self._fd is None
        if not files:
            # Its first entry says that nothing is before it, by its number that something was.
            noted = noted or _State()
            self._state = _State(Head(noted.head.number, START), missed=noted.missed)
            self._forget_file()
            return
        self._use(files[-1].name)
        assert self._fd is not None
        size = os.fstat(self._fd).st_size
        if (
            noted is not None
            and not is_first
            and (noted.file, noted.size) == (files[-1].name, size)
        ):
            self._state, self._known = noted, raw
            return
        head, torn = _end(files)
        missed = 0 if noted is None else noted.missed
        self._state = _State(head, files[-1].name, size, missed)
        lost = 0 if noted is None else max(0, noted.head.number - head.number)
        if torn or lost:
            self._say_cut(torn, lost, at)
        else:
            self._note(self._state)

    def _say_cut(self, torn: bytes, lost: int, at: float) -> None:
        facts: dict[str, Any] = {"lost": lost or None}
        reason = "entries that were written are gone"
        if torn:
            reason = "a line was cut off"
            facts |= {"torn": len(torn), "torn_sha256": torn_digest([torn])}
        log.warning("the audit trail %s: %s", self.folder, reason)
        assert self._fd is not None
        size = self._state.size
        is_ended = size == 0 or os.pread(self._fd, 1, size - 1) == b"\n"
        cut = line(self._state.head, at, CUT, {"reason": reason, **facts}, skips=lost)
        self._write([cut], before=b"" if is_ended else b"\n")

    def _forget_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def _forget(self) -> None:
        self._forget_file()
        if self._head_fd is not None:
            os.close(self._head_fd)
        self._head_fd, self._known = None, b""


def _month(at: float) -> tuple[str, float, float]:
    """Return the name of an instant's month, its beginning and its end."""
    when = datetime.fromtimestamp(at, UTC)
    begin = datetime(when.year, when.month, 1, tzinfo=UTC)
    end = datetime(when.year + when.month // 12, when.month % 12 + 1, 1, tzinfo=UTC)
    return f"{when:%Y-%m}", begin.timestamp(), end.timestamp()


def _lines(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the lines of the first bytes of a file, however long one is."""
    left = size
    while left > 0 and (raw := file.readline(min(left, _PIECE))):
        left -= len(raw)
        yield raw


def _end(files: Sequence[Path]) -> tuple[Head, bytes]:
    """Return the head of the chain in these files, and what is after it that is no entry."""
    torn = b""
    for path in reversed(files):
        entry, rest = _last(path)
        torn = rest + torn
        if entry is not None:
            return entry.head, torn
    return Head(), torn


def _last(path: Path) -> tuple[Entry | None, bytes]:
    """Return the last entry of a file, and what comes after it."""
    with as_owner():
        file = path.open("rb")
    with file:
        size = file.seek(0, os.SEEK_END)
        length = 0
        while length < size:
            length = min(size, max(_PIECE, 2 * length))
            file.seek(size - length)
            raw = file.read(length)
            rest = b""
            while raw:
                before, _, last = raw.removesuffix(b"\n").rpartition(b"\n")
                last = raw[len(raw) - len(last) - raw.endswith(b"\n") :]
                if (entry := parsed(last)) is not None:
                    return entry, rest
                rest = last + rest
                raw = raw[: len(raw) - len(last)]
    return None, rest if size else b""
