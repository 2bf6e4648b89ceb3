"""The audit trail: what happened to jobs and hosts, by whom, in the order in which it happened.

The scripts write it in the same step as what it tells of. It is bounded (about 10,000 events): who
must keep more follows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq.model.events import Event
from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis

#: How many entries one round trip reads.
_PAGE = 1000
_WORDS = {
    "e": "what",
    "j": "job",
    "h": "host",
    "w": "who",
    "s": "state",
    "r": "reason",
    "q": "queue",
    "k": "install",
    "c": "account",
    "l": "schedule",
}
_WHOLE = {"a": "attempt", "x": "exit_code", "g": "signal", "p": "priority", "n": "count"}
_DECIMAL = {"d": "due_at", "t": "seconds"}


class Events:
    """The trail's reading end."""

    def __init__(self, connection: redis.Redis, keys: Keys) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._key = keys("events")

    def read(
        self,
        *,
        since: float | None = None,
        count: int | None = None,
        job: str | None = None,
        host: str | None = None,
    ) -> Sequence[Event]:
        """Return the events since an instant, the oldest first: the last `count` of these.

        Of a job also those that tell of several jobs, if it is the first of them.
        """
        low = "-" if since is None else f"{since * 1000:.0f}"
        high = "+"
        found: list[Event] = []
        while count is None or len(found) < count:
            with broker_errors():
                rows = self._connection.xrevrange(self._key, high, low, count=_PAGE)
            found += _fitting(rows, job=job, host=host)
            if len(rows) < _PAGE:
                break
            high = b"(" + rows[-1][0]
        return found[:count][::-1]

    def last(self) -> str:
        """Return the id of the newest event, to `follow` from; "0" before there is one."""
        with broker_errors():
            rows = self._connection.xrevrange(self._key, "+", "-", count=1)
        return rows[0][0].decode() if rows else "0"

    def after(self, place: str, *, count: int) -> tuple[Sequence[Event], bool]:
        """Return the first events after an id, and whether what came next to it is forgotten.

        From "0" on, what is forgotten can't be told.
        """
        with broker_errors():
            rows = self._connection.xrange(
                self._key, "-" if place == "0" else place, "+", count=count + 1
            )
        is_known = bool(rows) and rows[0][0].decode() == place
        is_gap = bool(rows) and place != "0" and not is_known
        return list(_fitting(rows[is_known : is_known + count], job=None, host=None)), is_gap

    def follow(
        self, after: str, *, patience: float, job: str | None = None, host: str | None = None
    ) -> tuple[str, Sequence[Event]]:
        """Wait up to `patience` seconds for events after that id.

        Returns the id to go on from, and those events that were asked for: there may be none.
        """
        with broker_errors():
            answer: Any = self._connection.xread(
                {self._key: after}, count=_PAGE, block=max(1, int(patience * 1000))
            )
        if not answer:
            return after, []
        [(_, rows)] = answer.items() if isinstance(answer, dict) else answer
        return rows[-1][0].decode(), list(_fitting(rows, job=job, host=host))


def _fitting(
    rows: Iterable[tuple[bytes, Mapping[bytes, bytes]]], *, job: str | None, host: str | None
) -> Iterable[Event]:
    for id, raw in rows:
        event = _event(id.decode(), raw)
        if job in (None, event.job) and host in (None, event.host):
            yield event


def _event(id: str, raw: Mapping[bytes, bytes]) -> Event:
    fields: dict[str, Any] = {"what": "?"}
    for key, value in raw.items():
        letter, text = key.decode(errors="replace"), value.decode(errors="replace")
        if not text:
            continue
        if letter in _WORDS:
            fields[_WORDS[letter]] = text
            continue
        # The scripts take numbers from records: of one that has none there, the event has none.
        number = _number(text)
        if number is None:
            continue
        if letter in _WHOLE:
            fields[_WHOLE[letter]] = int(number)
        elif letter in _DECIMAL:
            fields[_DECIMAL[letter]] = number
    return Event(id=id, at=int(id.partition("-")[0]) / 1000, **fields)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
