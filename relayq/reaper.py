"""Lets time pass for the whole fleet, and mends its records; any worker may do so at any time."""

from __future__ import annotations

import logging
import threading

from relayq import clock
from relayq.config import Config
from relayq.dispatch import TEMPLATE
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.host import attempts, clearing
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.leases import Keep, Times

log = logging.getLogger(__name__)

#: How long a delivered output is kept on its host.
KEEP_OUTPUT = 14 * 86_400.0
#: Of 500 keys each: a million jobs are gone over within a day by three hosts.
_STEPS = 20
#: Ticks that may be missing before it is thought that not only they were away.
_MISSING = 6
_AFTER_DUE = 0.02
#: The longest time between two ticks, by the time that is configured.
_LONGEST = 1.25
#: As many schedules as one tick tells of.
_MANY = 100


class Reaper:
    """One worker's share of the fleet's housekeeping, and all of its own host's."""

    def __init__(self, config: Config, store: Store, signer: Signer) -> None:
        self._config = config
        self._store = store
        self._signer = signer
        #: When a further tick is to come, on the clock of this boot.
        self._comes_at = 0.0

    def tick(self) -> None:
        """Expire, judge, release and prune what is due."""
        lease, defaults = self._config.lease, self._config.defaults
        times = Times(
            lease=lease.length,
            lost_min=lease.lost_min,
            lost_max=lease.lost_max,
            crash_limit=self._config.retry.crash_limit,
            gap=max(lease.length / 2, _MISSING * lease.tick),
        )
        keep = Keep(age=defaults.keep_results, jobs=defaults.keep_jobs)
        recurring = []
        for word, id in self._store.leases.tick(times, template=TEMPLATE, keep=keep):
            if word == "recurs":
                recurring.append(id)
            elif word == "comes":
                self._come_in(float(id))
            else:
                log.info("%s %s", word, id, extra={"job": id})
        for name in recurring:
            self._recur(name)
        if len(recurring) >= _MANY:
            self._come_in(0.0)

    def _recur(self, name: str) -> None:
        """Take a schedule's turn, and be there for the next one."""
        # Imported only where something recurs: it knows of time zones.
        from relayq.recurring import Turns

        turns = Turns(self._store, self._signer, self._config, who=self._config.worker.name)
        try:
            taken = turns.take(name)
        except BrokerUnavailable:
            raise
        except RelayqError as error:
            # The other schedules aren't held up.
            log.warning("the schedule %s has to wait: %s", name, error.message)
            return
        for spec in taken.jobs:
            log.info("%s by the schedule %s", spec.id, name, extra={"job": spec.id})
        if taken.wait is not None:
            self._come_in(taken.wait)

    def _come_in(self, delay: float) -> None:
        """Tick for a schedule, unless that is to be done at that time anyway."""
        now = clock.boottime()
        if now < self._comes_at <= now + delay + 2 * _AFTER_DUE:
            return
        self._comes_at = now + delay + _AFTER_DUE
        self.tick_in(delay)

    def tick_in(self, delay: float) -> None:
        """Tick when a job is due, if the regular tick would let it wait."""
        if delay < _LONGEST * self._config.lease.tick:
            timer = threading.Timer(delay + _AFTER_DUE, self._tick_once)
            timer.daemon = True
            timer.start()

    def _tick_once(self) -> None:
        try:
            self.tick()
        except BrokerUnavailable as error:
            log.debug("no broker to release a retry: %s", error)

    def sweep(self) -> None:
        """Mend the indices: to the end of a round over all keys, but a bounded part of it."""
        for _ in range(_STEPS):
            mended = self._store.sweep.step(lease=self._config.lease.length, template=TEMPLATE)
            for word, name in mended:
                if word == "unfit":
                    log.warning("nothing can be mended of %s: its record makes no sense", name)
                    continue
                log.warning("%s %s, which its record didn't agree with", word, name)
            if self._store.sweep.is_at_start():
                return

    def prune_outputs(self) -> None:
        """Remove old outputs and worktrees from this host's disk."""
        removed = attempts.prune(self._config.spool, older_than=KEEP_OUTPUT)
        if removed:
            log.info("removed %s old outputs", removed)
        try:
            cleared = clearing.clear(self._config.home, self._store, self._config.worker.worktrees)
        except BrokerUnavailable as error:
            log.debug("no broker to say which worktrees are done with: %s", error)
        else:
            if cleared:
                log.info("removed %s worktrees of ended jobs", cleared)
