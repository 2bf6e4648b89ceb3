"""^C and its relatives, as one exception that says what ended a command."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What ends a command.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked this command to end."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)


@contextmanager
def interruptible() -> Iterator[None]:
    """Have the signals that end a command raise `Interrupted`; what is ignored stays ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # None: a handler that wasn't set by Python, which nothing could put back.
    taken = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in taken:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, old in taken.items():
            signal.signal(number, old)


@contextmanager
def held() -> Iterator[None]:
    """Hold those signals back: what begins in here also ends in here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
