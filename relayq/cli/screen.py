"""What is drawn over and over on a terminal, and the keys that end it."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from relayq import clock


@contextmanager
def drawing(is_wanted: bool, *, whole: bool = False) -> Iterator[Callable[[str], None] | None]:
    """Yield what draws a text over the one before, on a terminal; None elsewhere.

    With `whole` it takes the whole screen, and gives it back at the end.
    """
    if not is_wanted or not sys.stdout.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    is_plain = click.get_current_context().color is False
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=whole) as live:

        def draw(text: str) -> None:
            shown = Text.from_ansi(click.unstyle(text) if is_plain else text)
            shown.no_wrap = True
            live.update(shown, refresh=True)

        yield draw


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Yield what waits so many seconds for a key, and returns it, empty if none came."""
    if not sys.stdin.isatty():

        def rest(seconds: float) -> str:
            clock.sleep(seconds)
            return ""

        yield rest
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def wait(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 64).decode(errors="replace") if ready else ""

    try:
        # ^C still interrupts.
        tty.setcbreak(descriptor)
        yield wait
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
