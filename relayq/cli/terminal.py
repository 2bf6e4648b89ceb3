"""This terminal, or what is piped into it, as a job's standard input."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
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


def source(
    *, tty: bool, stdin: str | None, nothing: bool, detached: bool
) -> tuple[Callable[[JobResult], AbstractContextManager[None]] | None, dict[str, Any]]:
    """Return what a job reads, as its options say, and the payload's fields that it takes."""
    if sum((tty, stdin is not None, nothing)) > 1:
        raise click.UsageError("--tty, --stdin and --no-stdin exclude each other")
    if detached and (tty or stdin is not None):
        raise click.UsageError("a detached job can't read what is here")
    if tty:
        if not sys.stdin.isatty():
            raise click.UsageError("--tty needs a terminal here")
        return terminal, {"tty": True}
    if stdin is None and (nothing or detached or not is_piped()):
        return None, {}
    return partial(fed, descriptor=opened(stdin or "-")), {"feed": True}


def opened(name: str) -> int:
    """Return a descriptor of a file, of this command's own standard input for `-`."""
    if name == "-":
        return 0
    try:
        return os.open(name, os.O_RDONLY)
    except OSError as error:
        raise click.BadParameter(f"{name}: {os.strerror(error.errno or 0).lower()}") from error


@contextmanager
def fed(result: JobResult, *, descriptor: int) -> Iterator[None]:
    """Send a file or pipe to a job in the background, to its end."""
    _start(lambda: result.feed(lambda: os.read(descriptor, _PIECE)))
    yield


def _start(feeding: Callable[[], None]) -> None:
    def run() -> None:
        try:
            feeding()
        except Detached:
            return
        except RelayqError as error:
            print(f"relayq: the input stopped: {error.message}", file=sys.stderr)

    threading.Thread(target=run, name="feed", daemon=True).start()


class Detached(Exception):
    """The user left the terminal: the input stops and doesn't end."""


class Keys:
    """What is typed, with ssh's escape: `~.` at the beginning of a line detaches."""

    def __init__(self, read: Callable[[], bytes | None], detach: Callable[[], None]) -> None:
        self._read = read
        self._detach = detach
        self._begins_line = True
        self._holds_escape = False

    def read(self) -> bytes | None:
        """Return the next bytes for the job, None for a new size; raises `Detached`."""
        while typed := self._read():
            passed = self._pass(typed)
            if passed is None:
                self._detach()
                raise Detached
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
def terminal(result: JobResult, *, position: int = 0) -> Iterator[None]:
    """Make this terminal the job's; to detach raises SIGHUP in the main thread."""
    import termios
    import tty

    changed = threading.Event()
    changed.set()

    def size() -> tuple[int, int] | None:
        if not changed.is_set():
            return None
        changed.clear()
        columns, rows = os.get_terminal_size(0)
        return rows, columns

    def detach() -> None:
        # The main thread waits for output that may not come.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGHUP)

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
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, old)
