"""Files on their way, as somebody at the terminal sees them: a bar there, lines elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.cli import interrupts, show
from relayq.cli.live import is_live
from relayq.cli.meters import bar, percent, whole
from relayq.cli.tables import cut
from relayq.cli.texts import inert, span
from relayq.model.files import INLINE, parse_out
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.client import JobResult
    from relayq.model.jobs import JobRecord
    from relayq.transfer import Progress

#: How often a line says how far a file is, where no bar can.
_EVERY = 60.0
#: What is said of it when it's done; of a file that was only read nothing is.
_DONE = {"sending": "sent", "fetching": "fetched"}
_WIDTH = 14
#: In less there is room for the numbers only.
_WIDE = 70
#: How often, in seconds, a bar is drawn.
_TICK = 0.25


class Shown:
    """Shows each file that is on its way, larger ones only."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: _Bar | None = None

    @contextmanager
    def __call__(self, what: str, name: str, size: int) -> Iterator[Progress | None]:
        """Show one file; ^C ends that, though a submit holds it back."""
        with _interruptible(what, self.clear, quiet=self._quiet):
            if self._quiet or size <= INLINE:
                yield None
            elif is_live():
                self._bar = _Bar(what, name, size)
                try:
                    yield self._bar.tell
                finally:
                    self.clear()
                    self._bar = None
            else:
                lines = _Lines(what, name, size)
                yield lines.tell
                lines.end()

    def clear(self) -> None:
        """Take the bar away, before something else is written."""
        if self._bar is not None:
            self._bar.clear()


@contextmanager
def _interruptible(what: str, clear: Callable[[], None], *, quiet: bool) -> Iterator[None]:
    # Only what queues the job must not be cut in two, and that comes after its files.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, interrupts.SIGNALS) if is_main else None
    try:
        yield
    except KeyboardInterrupt:
        clear()
        if not quiet:
            is_ours = what == "fetching"
            show.remark("stopped; what has come is kept" if is_ours else "nothing was queued")
        raise
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Bar:
    """A line that is drawn over as long as the file is on its way."""

    def __init__(self, what: str, name: str, size: int) -> None:
        self._text = f"relayq: {_described(what, name, size)}"
        self._pace = Pace(size)
        self._drawn_at = -_TICK
        self._is_drawn = False

    def tell(self, done: int, total: int) -> None:
        """Draw how far it is, if that wasn't done just now."""
        now = clock.boottime()
        pace = self._pace.at(done, now)
        if now < self._drawn_at + _TICK:
            return
        part = done / total if total else 1.0
        width = shutil.get_terminal_size().columns - 1
        meter = f"{bar(part, _WIDTH)} " if width >= _WIDE else ""
        line = f"{self._text}  {meter}{percent(part)}  {pace}"
        sys.stderr.write(f"\r{cut(line, max(1, width))}\x1b[K")
        sys.stderr.flush()
        self._drawn_at, self._is_drawn = now, True

    def clear(self) -> None:
        """Take the line away."""
        if self._is_drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._is_drawn = False


def _described(what: str, name: str, size: int) -> str:
    return f"{what} {inert(os.path.basename(name))} {size_text(size)}"


class Pace:
    """How fast a file is, and how long it takes from now on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._first: tuple[int, float] | None = None

    def at(self, done: int, now: float) -> str:
        """Return `74 MB/s  4s`; what an earlier call had moved doesn't count as fast."""
        if self._first is None:
            self._first = (done, now)
        begun, since = self._first
        rate = (done - begun) / (now - since) if now > since else 0.0
        if rate <= 0:
            return ""
        return f"{size_text(rate)}/s  {whole(max(0, self._size - done) / rate)}"


class _Lines:
    """A line when it's done, and one a minute until then."""

    def __init__(self, what: str, name: str, size: int) -> None:
        self._what, self._name, self._size = what, name, size
        self._began = self._told = clock.boottime()
        self._pace = Pace(size)

    def tell(self, done: int, total: int) -> None:
        """Take note of how far it is."""
        now = clock.boottime()
        pace = self._pace.at(done, now)
        if now >= self._told + _EVERY:
            self._told = now
            part = 100 * done // max(1, total)
            show.remark(f"{_described(self._what, self._name, self._size)}  {part}%  {pace}")

    def end(self) -> None:
        """Say that it's done."""
        if self._what in _DONE:
            took = span(clock.boottime() - self._began)
            show.remark(f"{_described(_DONE[self._what], self._name, self._size)} in {took}")


def coming_here(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a job whose command brings its files itself.

    What has no place of its own comes into this directory, and must not be in the way there.
    """
    if "files_out" not in asked:
        return asked
    here = os.path.join(os.getcwd(), "")
    files = [parse_out(text) if isinstance(text, str) else text for text in asked["files_out"]]
    return {**asked, "files_out": [f if f.dest else replace(f, dest=here) for f in files]}


def bring(result: JobResult, record: JobRecord, *, quiet: bool) -> list[dict[str, Any]]:
    """Bring the files of a job that ended; what a failed one has left, as far as that goes."""
    from relayq.errors import RelayqError

    if not result.files:
        return []
    try:
        paths = result.fetch()
    except RelayqError as error:
        if record.state == "succeeded":
            raise
        show.remark(f"{result.id}  {error.message}")
        if error.hint:
            show.hint(error.hint)
        return []
    found = [
        {"name": kept.name, "path": path, "size": kept.size, "sha256": kept.sha256}
        for kept, path in zip(result.files, paths, strict=True)
    ]
    if not quiet:
        for kept, path in zip(result.files, paths, strict=True):
            show.remark(f"{result.id}  brought {inert(_from_here(path))} ({size_text(kept.size)})")
    return found


def _from_here(path: str) -> str:
    """Return the shorter of a path's two forms."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
