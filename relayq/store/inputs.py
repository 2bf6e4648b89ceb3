"""Standard input on its way from a submitter to a job, in pieces by byte position.

The submitter is never more than a window ahead of what the host has on its disk, so what a job
doesn't read waits there and not in Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

INPUT_TTL = 86_400


@dataclass(frozen=True, slots=True)
class InputPiece:
    """Bytes from `position` on; the last one of an input `is_end`."""

    position: int
    data: bytes
    is_end: bool = False
    entry: bytes = b""


class Inputs:
    """Inputs in Redis."""

    def __init__(self, connection: redis.Redis, keys: Keys) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys

    def send(self, id: str, piece: InputPiece) -> int:
        """Send a piece to a job; returns the position up to which its host has the input."""
        fields = {"p": piece.position, "d": piece.data, "end": int(piece.is_end)}
        pipe = self._connection.pipeline(transaction=True)
        pipe.xadd(self._keys("input", id), fields)
        pipe.expire(self._keys("input", id), INPUT_TTL)
        pipe.get(self._keys("taken", id))
        with broker_errors():
            answer = pipe.execute()[-1]
        return int(answer or 0)

    def taken(self, id: str) -> int:
        """Return the position up to which a host has the input."""
        with broker_errors():
            return int(self._connection.get(self._keys("taken", id)) or 0)

    def receive(self, id: str, *, since: bytes, position: int, patience: float) -> list[InputPiece]:
        """Say that the input up to `position` is on the disk, drop it, and block for more."""
        pipe = self._connection.pipeline(transaction=False)
        if position:
            pipe.set(self._keys("taken", id), position, ex=INPUT_TTL)
            pipe.xtrim(self._keys("input", id), minid=since, approximate=False)
        block = max(1, int(patience * 1000))
        pipe.xread({self._keys("input", id): since}, count=16, block=block)
        with broker_errors():
            answer = pipe.execute()[-1]
        rows = answer.items() if isinstance(answer, dict) else (answer or [])
        return [
            InputPiece(int(f[b"p"]), f[b"d"], is_end=f[b"end"] == b"1", entry=entry)
            for _, entries in rows
            for entry, f in entries
        ]
