"""What the scripts counted: attempts by day, host and kind, and the last day's by hour and host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from relayq.model.stats import DAY, HOUR, Tally, tallies
from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

#: How many days are kept, and hours.
DAYS, HOURS = 400, 24


class Stats:
    """The counts of one data set."""

    def __init__(self, connection: redis.Redis, keys: Keys) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys

    def by_day(self, days: int, *, now: float) -> dict[tuple[str, str], Tally]:
        """Return the sums by host and kind of the last days, counted in UTC; 1 is today."""
        today = int(now // DAY)
        numbers = range(today, max(today - min(days, DAYS), -1), -1)
        return tallies(self._rows([f"d{number}" for number in numbers]))

    def last_day(self, *, now: float) -> dict[str, tuple[int, int]]:
        """Return for each host how many succeeded and failed in the last 24 hours, by the hour."""
        hour = int(now // HOUR)
        sums: dict[str, tuple[int, int]] = {}
        for host, _, what, count in self._rows([f"h{hour - back}" for back in range(HOURS)]):
            done, failed = sums.get(host, (0, 0))
            sums[host] = (done + count, failed) if what == "succeeded" else (done, failed + count)
        return sums

    def _rows(self, suffixes: list[str]) -> Iterator[tuple[str, str, str, int]]:
        """Yield host, kind (empty where hours are counted), what and how many."""
        pipe = self._connection.pipeline(transaction=False)
        for suffix in suffixes:
            pipe.hgetall(self._keys("stats", suffix))
        with broker_errors():
            answers = pipe.execute()
        for counts in answers:
            for name, count in counts.items():
                host, *kind, what = name.decode().split(" ")
                yield host, " ".join(kind), what, int(count)
