"""How far a map is, in one line that stands below what its items write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relayq import clock
from relayq.cli.live import Meter, drawn
from relayq.cli.meters import bar, percent, whole

if TYPE_CHECKING:
    from relayq.client import Relay

#: Where no line is live, one is printed when something has changed, and not more often than this.
_NEWS = 5.0
#: How long a rate needs to be worth telling, in seconds.
_TREND = 1.0
_WIDTH = 14


@dataclass(slots=True)
class Standing:
    """How the items of a map stand; `total` are those that run now, without what ended before."""

    group: str
    total: int
    done: int = 0
    failed: int = 0
    running: int = 0
    #: Those that nobody will run any more: they were halted, or cancelled.
    dropped: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> int:
        """How many have ended, however."""
        return self.done + self.failed + self.dropped

    def line(self, columns: int = 1_000) -> str:
        """Return all of it in a line, without its bar where there is no room for that."""
        left = self.total - self.ended
        # What runs is looked at less often than what has ended.
        running = min(self.running, left)
        counts = {"done": self.done, "running": running, "queued": left - running}
        parts = [f"{name} {count}" for name, count in counts.items()]
        parts += [f"failed {self.failed}"] if self.failed else []
        parts += [f"cancelled {self.dropped}"] if self.dropped else []
        fraction = self.ended / self.total if self.total else 1.0
        place = len(parts)
        parts.append(percent(fraction).strip())
        if self.seconds >= _TREND and self.ended:
            each = self.seconds / self.ended
            parts += [f"eta {whole(each * (self.total - self.ended))}", rate(each)]
        parts = [f"relayq: {self.group}", *parts]
        if len("  ".join(parts)) + _WIDTH + 2 < columns:
            parts[place + 1] = f"{bar(fraction, _WIDTH)} {percent(fraction)}"
        return "  ".join(parts)


def rate(each: float) -> str:
    """Return how fast items end, as people say it, by the seconds that one takes: `3.1/min`."""
    for unit, seconds in (("s", 1.0), ("min", 60.0)):
        count = seconds / max(each, 1e-6)
        if count >= 1:
            return f"{count:.0f}/{unit}" if count >= 10 else f"{count:.1f}/{unit}"
    return f"{3600 / each:.1f}/h"


class MapMeter(Meter):
    """Tells how the items stand that somebody waits for."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(lambda ids: {}, ())
        self.standing = standing
        self._told_line = ""

    def _run(self) -> None:
        while not self._over.wait(0.25):
            with self._lock:
                if self._over.is_set():
                    return
                with suppress(OSError, ValueError):  # a terminal that went away
                    self._tell(clock.boottime())

    def _tell(self, now: float) -> None:
        self.standing.seconds = now - self._began
        if self._is_held_up():
            return
        if self._is_live:
            self._draw(self.standing.line(self._room()))
        elif now - self._told_at >= _NEWS:
            counts = f"{self.standing.ended} {self.standing.running}"
            if counts != self._told_line:
                sys.stderr.write(f"{self.standing.line()}\n")
                sys.stderr.flush()
                self._told_line, self._told_at = counts, now


@contextmanager
def metering(relay: Relay, standing: Standing, *, quiet: bool) -> Iterator[MapMeter]:
    """Tell on stderr how a map stands, as long as the context lasts, unless it is `quiet`."""
    session = relay.session()
    meter = MapMeter(standing)
    if quiet:
        yield meter
        return
    with drawn(session, meter):
        yield meter
