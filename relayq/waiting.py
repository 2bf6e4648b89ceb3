"""Who waits for a job lets time pass for the fleet.

So a job whose whole fleet died gets its verdict, and nobody waits for ever.
"""

from __future__ import annotations

import logging
import random

from relayq import clock
from relayq.dispatch import TEMPLATE
from relayq.store import Store

log = logging.getLogger(__name__)

#: How many of a worker's ticks a waiting client leaves out: it only stands in for them.
_LEFT_OUT = 4.0


class Bystander:
    """Ticks now and then between two questions of somebody who waits.

    By the times that the workers use, not by this machine's configuration, and without pruning.
    """

    def __init__(self, store: Store, tick: float) -> None:
        self._store = store
        self._interval = _LEFT_OUT * tick
        self._due_at = clock.boottime() + self._wait()

    def look(self) -> None:
        """Tick if it is time; whatever comes of it, the waiting goes on."""
        if clock.boottime() < self._due_at:
            return
        self._due_at = clock.boottime() + self._wait()
        try:
            self._store.leases.tick(template=TEMPLATE)
        except Exception as error:
            # Whoever waits asks the broker next, and says it if that is gone.
            log.debug("a tick failed: %s", error)

    def _wait(self) -> float:
        return self._interval * (0.75 + random.random() / 2)
