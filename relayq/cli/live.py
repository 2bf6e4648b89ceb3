"""One line on stderr that tells how far the jobs are that somebody waits for.

It stands below what the jobs write, and is taken away before anything else is written. Drawn by
hand: rich's display knows nothing of the bytes that a job writes to the same terminal, nor of a
line that a job has begun and not ended.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from relayq import clock
from relayq.cli import meters
from relayq.cli.tables import cut
from relayq.errors import RelayqError
from relayq.model.output import STDERR, STDOUT, Frame

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.session import Session
    from relayq.store.progress import Sight

Write = Callable[[Iterable[Frame]], None]

#: How often, in seconds, the line is drawn.
_TICK = 0.25
#: How often the records are looked at: for a live line, for lines that are printed; once more for
#: so many jobs.
_LOOK = 1.0
_LOOK_PLAIN = 2.0
_MANY = 500
#: How long, in seconds, a job may be silent before a line without a percentage comes.
_SILENCE = 2.0
#: Where no line is live, one is printed at each tenth, and so often when there is news.
_NEWS = 60.0


class Meter:
    """Tells of the jobs that somebody waits for, until it is closed."""

    def __init__(
        self, look: Callable[[Sequence[str]], Mapping[str, Sight]], ids: Sequence[str]
    ) -> None:
        self._look = look
        self._ids = ids
        self._seen: Mapping[str, Sight] = {}
        self._began = self._wrote = clock.boottime()
        self._look_at = self._began + _LOOK
        self._begun: float | None = None
        #: Which channel's last line isn't ended.
        self._open = {STDOUT: False, STDERR: False}
        self._drawn = ""
        self._is_live = is_live()
        self._told, self._told_at, self._tenth = "", self._began, 0
        self._has_progress = self._has_waited = False
        # What is on the screen is changed by who draws and by who writes.
        self._lock = threading.Lock()
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to tell."""
        threading.Thread(target=self._run, name="meter", daemon=True).start()

    def close(self) -> None:
        """Take the line away, and tell no more."""
        self._over.set()
        # An interrupt in the middle of writing may have left the lock taken.
        is_ours = self._lock.acquire(timeout=1.0)
        self._erase()
        if is_ours:
            self._lock.release()

    def around(self, write: Write) -> Write:
        """Return what writes as `write` does, beside the line."""

        def written(frames: Iterable[Frame]) -> None:
            kept = list(frames)
            with self.aside():
                write(kept)
                for frame in kept:
                    if frame.data:
                        self._open[frame.channel] = not frame.data.endswith(b"\n")
                self._wrote = clock.boottime()

        return written

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the line away as long as something else is written."""
        with self._lock:
            self._erase()
            yield

    def _run(self) -> None:
        while not self._over.wait(_TICK):
            now = clock.boottime()
            if now >= self._look_at:
                # Without a broker the last look stands; who follows the job says that it is gone.
                with suppress(RelayqError):
                    self._seen = self._look(self._ids)
                each = _LOOK if self._is_live else _LOOK_PLAIN
                self._look_at = clock.boottime() + each * (1 + len(self._ids) // _MANY)
                if self._begun is None:
                    self._begun = meters.fraction_of_all(self._ids, self._seen)
            with self._lock:
                if self._over.is_set():
                    return
                with suppress(OSError, ValueError):  # a terminal that went away
                    self._tell(clock.boottime())

    def _tell(self, now: float) -> None:
        if not self._seen or self._is_held_up():
            return
        if not self._is_live:
            self._tell_news(now)
            return
        if self._fraction() is None and now - self._wrote < _SILENCE and self._is_running():
            return
        self._draw(self._text(now))

    def _room(self) -> int:
        return _columns()

    def _draw(self, line: str) -> None:
        text = cut(line, max(1, self._room() - 1))
        if text != self._drawn:
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()
            self._drawn = text

    def _tell_news(self, now: float) -> None:
        """Print a line at each tenth, or when there has been news for a minute."""
        if not self._has_waited and not self._is_running() and sys.stderr.isatty():
            self._print(now)
        self._has_waited = True
        said = [one.progress for one in self._seen.values() if one.progress is not None]
        self._has_progress = self._has_progress or bool(said)
        if not self._has_progress:
            return
        fraction = self._fraction()
        tenth = 0 if fraction is None else int(fraction * 10 + 1e-9)
        news = "" if fraction is None and not said else f"{fraction} {said[0].text if said else ''}"
        is_first = not self._told and fraction is None and bool(news)
        is_due = now - self._told_at >= _NEWS and news != self._told
        if tenth > self._tenth or is_first or is_due:
            self._print(now)
            self._told, self._told_at = news, now
        # Another attempt begins at its beginning.
        self._tenth = tenth

    def _print(self, now: float) -> None:
        sys.stderr.write(f"{self._text(now)}\n")
        sys.stderr.flush()

    def _text(self, now: float) -> str:
        waited = now - self._began
        if len(self._ids) > 1:
            return meters.total_line(self._ids, self._seen, waited, self._begun)
        [sight] = self._seen.values()
        return meters.line_of(sight, clock.now(), waited)

    def _fraction(self) -> float | None:
        if len(self._ids) > 1:
            return meters.fraction_of_all(self._ids, self._seen)
        [sight] = self._seen.values()
        return sight.progress.fraction if sight.progress is not None else None

    def _is_running(self) -> bool:
        return any(map(meters.is_held, self._seen.values()))

    def _is_held_up(self) -> bool:
        """Whether a line can't be written now."""
        return self._is_amid_a_line() or not _is_in_front()

    def _is_amid_a_line(self) -> bool:
        return self._open[STDERR] or (self._open[STDOUT] and _is_shared())

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = ""
            with suppress(OSError, ValueError):
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()


@contextmanager
def watching(relay: Relay, ids: Sequence[str], *, quiet: bool) -> Iterator[Meter]:
    """Tell on stderr how far these jobs are, as long as the context lasts, unless it is `quiet`.

    What is written meanwhile has to go `around` the meter.
    """
    session = relay.session()
    meter = Meter(session.store.progress.look, ids)
    if quiet or not ids:
        yield meter
        return
    with drawn(session, meter):
        yield meter


@contextmanager
def drawn(session: Session, meter: Meter) -> Iterator[None]:
    """Draw a meter as long as the context lasts; what the session says goes around it."""
    say = session.say

    def beside(text: str) -> None:
        with meter.aside():
            say(text)

    session.say = beside
    meter.start()
    try:
        yield
    finally:
        meter.close()
        if session.say is beside:
            session.say = say


def is_live() -> bool:
    """Whether a line on stderr can be drawn over, and stays alone."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        mode = os.fstat(1).st_mode
    except OSError:
        return True
    # A pager or a filter writes to the same terminal whenever it wants.
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def _is_shared() -> bool:
    """Whether stdout and stderr go to the same place."""
    try:
        out, err = os.fstat(1), os.fstat(2)
    except OSError:
        return False
    return (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)


def _is_in_front() -> bool:
    """Whether this command has its terminal for itself: in the background the prompt is there."""
    try:
        return not sys.stderr.isatty() or os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return True


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or shutil.get_terminal_size().columns
    except OSError:
        return shutil.get_terminal_size().columns
