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
    deadline = time.monotonic() + within
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            awaited = what() if callable(what) else what
            raise AssertionError(f"timed out after {within} s waiting for {awaited}")
        time.sleep(0.01)
