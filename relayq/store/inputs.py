"""Standard input on its way from a submitter to a job, in pieces by byte position.

The submitter is never more than a window ahead of what the host has on its disk, so what a job
doesn't read waits there and not in Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis

INPUT_TTL = 86_400


@dataclass(frozen=True, slots=True)
class InputPiece:
    """Bytes from `position` on; the last one of an input `is_end`.

    `size` is that of the submitter's terminal, rows and columns, when it has changed. The
    `signature` says who sent it (relayq.feeding).
    """

    position: int
    data: bytes
    is_end: bool = False
    size: tuple[int, int] | None = None
    entry: bytes = b""
    signature: bytes = b""


class Inputs:
    """Inputs in Redis."""

    def __init__(self, connection: redis.Redis, keys: Keys) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys

    def send(self, id: str, piece: InputPiece) -> int:
        """Send a piece to a job; returns the position up to which its host has the input."""
        fields: dict[str, Any] = {
            "p": piece.position,
            "d": piece.data,
            "end": int(piece.is_end),
            "s": piece.signature,
        }
        if piece.size is not None:
            fields["size"] = "{} {}".format(*piece.size)
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
        return [_piece(entry, fields) for _, entries in rows for entry, fields in entries]

    def sent(self, id: str) -> int:
        """Return the position up to which the input was sent, for one who goes on with it."""
        with broker_errors():
            rows = self._connection.xrevrange(self._keys("input", id), count=1)
        if not rows:
            return self.taken(id)
        last = _piece(*rows[0])
        return last.position + len(last.data)


def _piece(entry: bytes, fields: Mapping[bytes, bytes]) -> InputPiece:
    """Return an entry as a piece; one that is none is empty, and signed by nobody."""
    try:
        size = None
        if b"size" in fields:
            rows, columns = fields[b"size"].split()
            size = (int(rows), int(columns))
        return InputPiece(
            int(fields[b"p"]),
            fields[b"d"],
            is_end=fields[b"end"] == b"1",
            size=size,
            entry=entry,
            signature=fields[b"s"],
        )
    except (KeyError, ValueError):
        return InputPiece(0, b"", entry=entry)
