"""Threads that wait for the end of shims, one each, and are used again: starting one costs more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Followers:
    """Runs waits that block for as long as a job runs; a worker needn't wait for them to end."""

    def __init__(self) -> None:
        self._idle = 0
        self._lock = threading.Lock()
        self._waits: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def follow(self, wait: Callable[[], None]) -> None:
        """Run `wait`, which must not raise, in an idle thread or a new one."""
        with self._lock:
            is_taken = self._idle > 0
            self._idle -= is_taken
        if is_taken:
            self._waits.put(wait)
        else:
            threading.Thread(target=self._run, args=(wait,), name="follower", daemon=True).start()

    def _run(self, wait: Callable[[], None]) -> None:
        while True:
            wait()
            with self._lock:
                self._idle += 1
            wait = self._waits.get()
