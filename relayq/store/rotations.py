"""The fleet's keys that came one after the other, each sealed under the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis

#: Of `meta`: what came after the key of this name.
_FIELD = "key:"


class Resigned(NamedTuple):
    """A schedule that was signed anew: its name, what was stored, and what is to be."""

    name: str
    before: bytes
    after: bytes


class Rotations:
    """Which key came after which; sealing is above the store."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def rotate(
        self,
        old: str,
        new: str,
        sealed: bytes,
        *,
        schedules: Sequence[Resigned],
        count: int,
        who: str,
    ) -> str:
        """Have the fleet go on with another key, and with these schedules as it signed them.

        `count` is how many schedules there were, those included that keep their signature. Returns
        "rotated", "wrong_key" when the fleet's key is another one than `old`, or "changed" when a
        schedule isn't what it was.
        """
        rest = [part for one in schedules for part in one]
        word = self._scripts.call(
            "rotate", rest, key_id=old, new_id=new, sealed=sealed, count=count, who=who
        )
        return str(word.decode())

    def successor(self, key_id: str) -> bytes | None:
        """Return what came after a key, sealed under it; None while it is the fleet's."""
        with broker_errors():
            found = self._connection.hget(self._keys("meta"), f"{_FIELD}{key_id}")
        return None if found is None else bytes(found)
