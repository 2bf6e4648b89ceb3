"""When a failed attempt is followed by another, as a value and a pure decision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again: `retries` further ones, delays doubling to a limit."""

    retries: int = 0
    first_delay: float = 1.0
    factor: float = 2.0
    longest_delay: float = 60.0

    def delay_after(self, failures: int, *, jitter: float) -> float | None:
        """Return the seconds to wait after `failures` failed attempts, or None: that was the last.

        `jitter` in [0, 1) spreads the delay over its upper half (the caller owns randomness).
        """
        if failures > self.retries:
            return None
        # 64 doublings are longer than any limit, and a float holds them.
        delay = self.first_delay * self.factor ** min(failures - 1, 64)
        return min(delay, self.longest_delay) * (0.5 + jitter / 2)
