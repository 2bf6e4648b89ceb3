"""Looks whether a worker does what it lives for, and tells the service manager while it does.

A worker that beats and takes nudges is alive, with or without a broker. One that stopped to is
ended by its manager and started anew; its jobs go on meanwhile. Nobody watches a worker that no
manager started.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from relayq.model.units import WATCHDOG
from relayq.notify import Supervisor

if TYPE_CHECKING:
    from relayq.host.heartbeat import Heartbeat
    from relayq.host.runner import Runner

log = logging.getLogger(__name__)

#: Longer than a beat with all its calls may take when each of them waits for its answer.
_STILL = 90.0


class Tries(logging.Filter):
    """Counts the consumer's attempts to connect by what it says of them, and keeps that quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what is said of an attempt."""
        is_attempt = "Cannot connect" in str(record.msg)
        self.number += is_attempt
        return not is_attempt


class _Sign:
    """Something that must change now and then."""

    def __init__(self, says: str, patience: float) -> None:
        self.says = says
        self._patience = patience
        self._last: object = None
        self._changed = monotonic()

    def see(self, value: object) -> str | None:
        """Take its value of now; return what is wrong if it hasn't changed for too long."""
        # Not the clock that counts sleep: a machine that slept has had no time to change.
        at = monotonic()
        if value != self._last:
            self._last, self._changed = value, at
        still = at - self._changed
        return f"{self.says} for {still:.0f} s" if still > self._patience else None


class Life(Protocol):
    """What a watchdog looks at."""

    def fault(self) -> str | None:
        """Return what hangs, None if all is well."""

    def summary(self) -> str:
        """Return in a few words what it does."""


class Signs:
    """The signs of life of a worker: its beats, and its consumer's loop or attempts to connect."""

    def __init__(
        self,
        runner: Runner,
        heartbeat: Heartbeat,
        *,
        ask_consumer: Callable[[Callable[[], None]], None],
        tries: Tries,
    ) -> None:
        self._runner = runner
        self._heartbeat = heartbeat
        self._ask_consumer = ask_consumer
        self._tries = tries
        self._turns = 0
        still = max(_STILL, runner.config.lease.idle_beat * 3)
        self._beats = _Sign("the heartbeat has stood still", still)
        self._consumer = _Sign("the consumer has stood still", still)
        self._end = _Sign("it has been about to end", still)

    def fault(self) -> str | None:
        """Return what hangs, None if all is well."""
        if self._runner.leaving.is_set():
            return self._end.see("leaving")
        beats = self._beats.see(self._heartbeat.last)
        if self._runner.draining.is_set() or not self._runner.may_claim.is_set():
            # A consumer that waits for the broker, or that takes nothing more, may stand still.
            self._turned()
        self._ask_consumer(self._turned)
        return beats or self._consumer.see((self._turns, self._tries.number))

    def _turned(self) -> None:
        self._turns += 1

    def summary(self) -> str:
        """Return in a few words what the worker does."""
        runner = self._runner
        if runner.draining.is_set():
            return f"draining: {len(runner.attempts())} jobs left"
        words = f"{len(runner.attempts())} jobs, {runner.slots.total} slots"
        return words if runner.may_claim.is_set() else f"{words}; the broker doesn't answer"


class Watchdog:
    """A thread that speaks to the service manager; at first fault it falls silent."""

    def __init__(self, supervisor: Supervisor, life: Life) -> None:
        self._supervisor = supervisor
        self._life = life
        self._patience = supervisor.patience or WATCHDOG
        self._faulty_since: float | None = None

    def start(self) -> None:
        """Begin, where there is a manager that this makes sense to."""
        if self._supervisor.hears:
            # systemd ends what hangs by ABRT: the journal then has where each thread was.
            faulthandler.enable()
        elif not self._supervisor.is_launchd:
            return
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _run(self) -> None:
        waiting = threading.Event()
        while not waiting.wait(self._patience / 4):
            try:
                self.look()
            except Exception:
                log.exception("the watchdog failed")

    def look(self) -> None:
        """Look once, and say that all is well if it is."""
        fault = self._life.fault()
        if fault is None:
            self._faulty_since = None
            self._supervisor.alive(self._life.summary())
            return
        log.critical("%s: this worker is to be ended and started again, its jobs go on", fault)
        at = monotonic()
        self._faulty_since = self._faulty_since or at
        if self._supervisor.is_launchd and at - self._faulty_since > self._patience / 2:
            faulthandler.dump_traceback(sys.stderr)
            os._exit(1)
