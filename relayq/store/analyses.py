"""Runs of analyses: their plans, and what was found in which content, for runs to come.

What is kept is signed by the fleet's key and checked by who reads it; here it is only bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq.errors import AmbiguousId, NoSuchAnalysis
from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis

#: As long as agents keep their sessions.
_KEEP = 30 * 86_400
_PAGE = 500
_HINT = "relayq analyze ls"


class Analyses:
    """The runs of the last 30 days."""

    def __init__(self, connection: redis.Redis, keys: Keys) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys

    def keep(self, id: str, plan: bytes, *, created_at: float) -> None:
        """Keep a run's plan, or one that takes its place."""
        index = self._keys("analyses")
        pipe = self._connection.pipeline(transaction=True)
        pipe.set(self._keys("analysis", id), plan, ex=_KEEP)
        pipe.zadd(index, {id: created_at})
        pipe.zremrangebyscore(index, "-inf", created_at - _KEEP)
        with broker_errors():
            pipe.execute()

    def forget(self, id: str) -> None:
        """Forget a run of which nothing was queued."""
        with broker_errors():
            self._connection.delete(self._keys("analysis", id))
            self._connection.zrem(self._keys("analyses"), id)

    def newest(self, limit: int) -> Sequence[str]:
        """Return the ids of so many runs, the newest first."""
        with broker_errors():
            ids = self._connection.zrevrange(self._keys("analyses"), 0, limit - 1)
        return [id.decode() for id in ids]

    def fetch(self, id: str) -> bytes | None:
        """Return the plan of a run."""
        with broker_errors():
            plan: bytes | None = self._connection.get(self._keys("analysis", id))
        return plan

    def find(self, text: str) -> str:
        """Return the id that `text` is, or that only it begins."""
        with broker_errors():
            ids = self._connection.zrevrange(self._keys("analyses"), 0, -1)
        known = [id.decode() for id in ids]
        matches = [text] if text in known else [id for id in known if text and id.startswith(text)]
        if len(matches) > 1:
            raise AmbiguousId(text, matches, what="runs", where=_HINT)
        if not matches:
            raise NoSuchAnalysis(f"no such run of an analysis: {text}", hint=_HINT)
        return matches[0]

    def found(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return what is known under these keys, of files that were analysed before."""
        answers: dict[str, bytes] = {}
        for start in range(0, len(keys), _PAGE):
            some = keys[start : start + _PAGE]
            with broker_errors():
                values = self._connection.mget([self._keys("analysed", key) for key in some])
            pairs = zip(some, values, strict=True)
            answers |= {key: value for key, value in pairs if value is not None}
        return answers

    def remember(self, found: Mapping[str, bytes]) -> None:
        """Keep what was found in files, for 30 days."""
        pipe = self._connection.pipeline(transaction=False)
        for key, value in found.items():
            pipe.set(self._keys("analysed", key), value, ex=_KEEP)
        with broker_errors():
            pipe.execute()
