"""This terminal, or what is piped into it, as a job's standard input."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from relayq.errors import RelayqError

if TYPE_CHECKING:
    from relayq.results import JobResult

_PIECE = 65_536
_ESCAPE, _DETACH = b"~", b"."


def is_piped() -> bool:
    """Whether something is piped or redirected into this command: not a terminal, not nothing."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def opened(name: str) -> int:
    """Return a descriptor of a file, of this command's own standard input for `-`."""
    if name == "-":
        return 0
    try:
        return os.open(name, os.O_RDONLY)
    except OSError as error:
        raise click.BadParameter(f"{name}: {os.strerror(error.errno or 0).lower()}") from error


def feed(result: JobResult, descriptor: int) -> None:
    """Send a file or pipe to a job in the background, to its end."""
    _start(lambda: result.feed(lambda: os.read(descriptor, _PIECE)))


def _start(feeding: Callable[[], None]) -> None:
    def run() -> None:
        try:
            feeding()
        except RelayqError as error:
            print(f"relayq: the input stopped: {error.message}", file=sys.stderr)

    threading.Thread(target=run, name="feed", daemon=True).start()


class Keys:
    """What is typed, with ssh's escape: `~.` at the beginning of a line detaches."""

    def __init__(self, read: Callable[[], bytes | None], detach: Callable[[], None]) -> None:
        self._read = read
        self._detach = detach
        self._begins_line = True
        self._holds_escape = False

    def read(self) -> bytes | None:
        """Return the next bytes for the job, b"" after the escape, None for a new size."""
        while typed := self._read():
            passed = self._pass(typed)
            if passed is None:
                self._detach()
                return b""
            if passed:
                return passed
        return typed

    def _pass(self, typed: bytes) -> bytes | None:
        """Return what goes to the job; a `~` at the beginning of a line waits for what follows."""
        passed = b""
        for key in (typed[i : i + 1] for i in range(len(typed))):
            if self._holds_escape and key == _DETACH:
                return None
            if self._begins_line and not self._holds_escape and key == _ESCAPE:
                self._holds_escape = True
                continue
            # A doubled escape stands for one.
            passed += _ESCAPE + key if self._holds_escape and key != _ESCAPE else key
            self._holds_escape = False
            self._begins_line = key in b"\r\n"
        return passed


@contextmanager
def terminal(result: JobResult, *, position: int = 0) -> Iterator[threading.Event]:
    """Make this terminal the job's; yields an event that is set when the user detached."""
    import termios
    import tty

    detached = threading.Event()
    changed = threading.Event()
    changed.set()

    def size() -> tuple[int, int] | None:
        if not changed.is_set():
            return None
        changed.clear()
        columns, rows = os.get_terminal_size(0)
        return rows, columns

    def detach() -> None:
        detached.set()
        # The main thread waits for output that may not come.
        signal.raise_signal(signal.SIGINT)

    def wake(*_: Any) -> None:
        changed.set()
        os.write(waker, b"\0")

    def read() -> bytes | None:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 64)
            return None
        return os.read(0, _PIECE)

    woken, waker = os.pipe()
    os.write(waker, b"\0")  # the size goes first
    before = termios.tcgetattr(0)
    old = signal.signal(signal.SIGWINCH, wake)
    try:
        tty.setraw(0)
        _start(lambda: result.feed(Keys(read, detach).read, position=position, size=size))
        yield detached
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, old)
