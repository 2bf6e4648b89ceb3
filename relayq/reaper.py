"""Lets time pass for the whole fleet: calls `tick`, which any worker may do at any time."""

from __future__ import annotations

import logging

from relayq.config import Config
from relayq.dispatch import TEMPLATE
from relayq.host import attempts
from relayq.host.delivery import CRASH_LIMIT
from relayq.store import Store

log = logging.getLogger(__name__)

#: How long a delivered output is kept on its host.
KEEP_OUTPUT = 14 * 86_400.0


class Reaper:
    """One worker's share of the fleet's housekeeping, and all of its own host's."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._store = store

    def tick(self) -> None:
        """Expire, judge, release and prune what is due."""
        lease = self._config.lease
        done = self._store.leases.tick(
            lease=lease.length,
            lost_min=lease.lost_min,
            lost_max=lease.lost_max,
            crash_limit=CRASH_LIMIT,
            keep=self._config.defaults.keep_results,
            template=TEMPLATE,
        )
        for word, id in done:
            log.info("%s %s", word, id, extra={"job": id})

    def prune_outputs(self) -> None:
        """Remove old outputs from this host's disk."""
        removed = attempts.prune(self._config.spool, older_than=KEEP_OUTPUT)
        if removed:
            log.info("removed %s old outputs", removed)
