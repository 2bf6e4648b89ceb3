"""An agent's program as a child: its lines as they come, and its end, also against its will.

It runs in a session of its own, so that what it is told to do reaches its tools and not the
runner. What it leaves behind is the shim's to end, which sees every descendant.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

#: A longer line isn't kept: no parser looks into it, and 50 MB of one tool's output would cost
#: several times that as text.
LONGEST_LINE = 16 * 2**20
_PIECE = 256 * 1024
_TICK = 1.0
#: More than a tick between two looks was spent frozen or asleep, and is nobody's fault.
_LONGEST_TICK = 2.0
#: How long the pipes may stay open after the program's own end.
_DRAIN = 1.0
#: How long a program may live on after its last word, or after it has closed its output.
_AFTER_LAST_WORD = 15.0
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Line(NamedTuple):
    """A line of the program's output; of one that was too long, only how long it was."""

    raw: bytes
    is_error: bool = False
    left_out_bytes: int = 0


class Lines:
    """Puts pieces together to lines of a bounded length."""

    def __init__(self, *, is_error: bool) -> None:
        self.is_of_errors = is_error
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Line]:
        """Yield the lines that a piece ends."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._take()
        self._add(rest)

    def rest(self) -> Iterator[Line]:
        """Yield what came after the last end of a line."""
        if self._size:
            yield self._take()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > LONGEST_LINE:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _take(self) -> Line:
        is_kept = self._size <= LONGEST_LINE
        raw = b"".join(self._parts).removesuffix(b"\r")
        line = Line(raw, self.is_of_errors, 0 if is_kept else self._size)
        self._parts, self._size = [], 0
        return line


class Signals:
    """The signals that ask this process to end, and its children's ends, as bytes of a pipe."""

    def __init__(self) -> None:
        self.is_asked = False
        self._reader, writer = os.pipe()
        for fd in (self._reader, writer):
            os.set_blocking(fd, False)
        for number in _ENDING:
            signal.signal(number, self._ask)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def _ask(self, number: int, frame: object) -> None:
        self.is_asked = True

    def fileno(self) -> int:
        """Return the end to wait on."""
        return self._reader

    def clear(self) -> None:
        """Take what has arrived."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)


class Program:
    """One run of an agent's program.

    `clock` counts the seconds in which it was able to run: a frozen job's watchdogs stand still.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: bytes,
        signals: Signals,
        grace: float,
    ) -> None:
        self.clock = 0.0
        #: When it last said a part of a line: one of 50 MB takes its time.
        self.mid_line_at = 0.0
        self.exit_code: int | None = None
        self.signal: int | None = None
        self._signals = signals
        self._grace = grace
        self._left = memoryview(stdin)
        self._kill_at: float | None = None
        self._gone_at: float | None = None
        self._last_word_at: float | None = None
        self._looked = monotonic()
        self._process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._poll = select.poll()
        self._poll.register(signals, select.POLLIN)
        self._channels: dict[int, Lines] = {}
        for stream, is_error in ((self._process.stdout, False), (self._process.stderr, True)):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._poll.register(stream, select.POLLIN)
            self._channels[stream.fileno()] = Lines(is_error=is_error)
        assert self._process.stdin is not None
        self._stdin: int | None = self._process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        self._poll.register(self._stdin, select.POLLOUT)

    @property
    def session(self) -> int:
        """The id of the session that it leads; its tools have sessions of their own."""
        return self._process.pid

    @property
    def is_ending(self) -> bool:
        """Whether it was asked to end."""
        return self._kill_at is not None

    def lines(self) -> Iterator[Line | None]:
        """Yield its lines until there is nothing more to come; None at least every second."""
        while not self._is_over():
            for fd, _ in self._poll.poll(int(_TICK * 200 if self.is_ending else _TICK * 1000)):
                if fd == self._stdin:
                    self._write()
                elif fd in self._channels:
                    yield from self._read(fd)
                else:
                    self._signals.clear()
            self._tick()
            yield None
        for lines in self._channels.values():
            yield from lines.rest()
        self._close()

    def said_its_last(self) -> None:
        """Note that it has nothing more to say: it may take a moment to end, not more."""
        self._last_word_at = self.clock

    def end(self, grace: float | None = None) -> None:
        """Ask it to end; it is killed if it doesn't within its grace, or within a shorter one."""
        if self._kill_at is None:
            patience = self._grace if grace is None else min(grace, self._grace)
            self._kill_at = self.clock + patience
            self._send(signal.SIGTERM)

    def _tick(self) -> None:
        now = monotonic()
        self.clock += min(now - self._looked, _LONGEST_TICK)
        self._looked = now
        if self._gone_at is None and (code := self._process.poll()) is not None:
            self._gone_at = self.clock
            self.exit_code, self.signal = (None, -code) if code < 0 else (code, None)
        if self._last_word_at is not None and self.clock > self._last_word_at + _AFTER_LAST_WORD:
            self.end()
        if self._kill_at is not None and self.clock >= self._kill_at:
            self._send(signal.SIGKILL)
            self._kill_at = self.clock + _TICK

    def _is_over(self) -> bool:
        """Whether it is gone and its pipes are empty, or somebody else keeps them open."""
        if self._gone_at is None:
            return False
        return not self._channels or self.clock > self._gone_at + _DRAIN

    def _send(self, number: int) -> None:
        # Once it was reaped its group's number may be somebody else's.
        if self._gone_at is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _read(self, fd: int) -> Iterator[Line]:
        try:
            piece = os.read(fd, _PIECE)
        except BlockingIOError:
            return
        lines = self._channels[fd]
        if piece:
            if b"\n" not in piece and not lines.is_of_errors:
                self.mid_line_at = self.clock
            yield from lines.feed(piece)
            return
        self._poll.unregister(fd)
        del self._channels[fd]
        yield from lines.rest()
        if not lines.is_of_errors and self._last_word_at is None:
            self.said_its_last()

    def _write(self) -> None:
        assert self._stdin is not None
        try:
            while self._left:
                self._left = self._left[os.write(self._stdin, self._left[:_PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # it doesn't want to hear the rest
        self._poll.unregister(self._stdin)
        self._stdin = None
        assert self._process.stdin is not None
        # Codex waits for ever on an open pipe.
        self._process.stdin.close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
