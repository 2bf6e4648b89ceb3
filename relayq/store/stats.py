"""What the scripts counted: attempts by day, host and kind, and the last day's by hour and host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from relayq.model.stats import DAY, HOUR, Tally, date_of, tallies
from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis

#: How many days are kept, and hours.
DAYS, HOURS = 400, 24
_Row = tuple[str, str, str, int]


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
        return tallies(chain.from_iterable(self._read("d", numbers)))

    def daily(self, days: int, *, now: float) -> dict[str, Tally]:
        """Return the sums by date of the last days on which anything ended, in UTC."""
        today = int(now // DAY)
        numbers = [today - back for back in range(min(days, DAYS)) if back <= today]
        rows = (
            (date_of(number), "", what, count)
            for number, counts in zip(numbers, self._read("d", numbers), strict=True)
            for _, _, what, count in counts
        )
        return {date: tally for (date, _), tally in sorted(tallies(rows).items())}

    def last_day(self, *, now: float) -> dict[str, tuple[int, int]]:
        """Return for each host how many succeeded and failed in the last 24 hours, by the hour."""
        hour = int(now // HOUR)
        sums: dict[str, tuple[int, int]] = {}
        hours = self._read("h", [hour - back for back in range(HOURS)])
        for host, _, what, count in chain.from_iterable(hours):
            done, failed = sums.get(host, (0, 0))
            sums[host] = (done + count, failed) if what == "succeeded" else (done, failed + count)
        return sums

    def _read(self, sort: str, numbers: Iterable[int]) -> Iterator[Iterator[_Row]]:
        """Yield the rows of each day or hour: host, kind (empty of hours), what and how many."""
        pipe = self._connection.pipeline(transaction=False)
        for number in numbers:
            pipe.hgetall(self._keys("stats", f"{sort}{number}"))
        with broker_errors():
            answers = pipe.execute()
        for counts in answers:
            yield (_row(name.decode(), int(count)) for name, count in counts.items())


def _row(name: str, count: int) -> _Row:
    host, *kind, what = name.split(" ")
    return host, " ".join(kind), what, count
