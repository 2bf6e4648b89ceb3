"""Waiting in tests: a predicate and a deadline, never a bare sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(
    predicate: Callable[[], object], *, within: float = 5.0, what: str | Callable[[], str]
) -> Any:
    """Return the predicate's first truthy value; fail when there is none `within` seconds."""
    __tracebackhide__ = True
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        value = predicate()
        if value:
            return value
        now = time.monotonic()
        if now >= began + within:
            awaited = what() if callable(what) else what
            raise AssertionError(f"timed out after {within} s waiting for {awaited}")
        time.sleep(_pause(now - asked, now - began))


def _pause(cost: float, waited: float) -> float:
    """Return how long to wait for the next look: what tests wait for needs the processor more.

    Most looks ask Redis, a millisecond here and as much there; some run a command or go through all
    processes. What comes at once is seen at once, what takes a second 50 ms after it was there.
    """
    return max(0.01, min(2 * cost, 0.2), min(waited / 20, 0.05))
