"""^C and its relatives, as one exception that says what ended a command."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: What ends a command.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How long after ^C another one means something else, in seconds.
_SECOND_THOUGHTS = 3.0


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


def leave_or_end(
    interrupt: Interrupted,
    how: str,
    name: str,
    *,
    hint: str,
    end: Callable[[], object],
    quiet: bool,
) -> None:
    """Leave what goes on without this command ("detach"), or `end` it ("cancel").

    Who leaves it at a terminal by ^C can end it by another one at once.
    """
    from relayq import clock
    from relayq.cli import show
    from relayq.cli.options import is_interactive

    if how == "cancel":
        end()
        return
    can_think_again = is_interactive() and str(interrupt) == "SIGINT"
    if not quiet:
        again = f"; ^C again within {_SECOND_THOUGHTS:.0f} s cancels it" if can_think_again else ""
        show.remark(f"detached; {name} goes on{again}")
        show.hint(hint)
    if not can_think_again:
        return
    try:
        clock.sleep(_SECOND_THOUGHTS)
    except Interrupted as second:
        if str(second) == "SIGINT":
            end()


def default_way() -> str:
    """Return what an interrupt does if nothing else was asked for.

    Nobody may be there to be told that something goes on: then it is ended.
    """
    from relayq.cli.options import is_interactive

    return "detach" if is_interactive() else "cancel"
