"""Output on its way: the bounded log of a job, and live replies to followers.

The log holds the head and the tail of an output, for when its host can't be asked. A follower
gets everything: it names a reply, the host writes the output from its disk into that reply's
stream, and waits there whenever the follower is more than a window behind (the job never waits).
Positions are byte offsets into the output (model/output.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relayq.model.jobs import Token
from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis

#: How far, in bytes, a host may be ahead of a follower.
WINDOW = 4 * 1024 * 1024
ACK_TTL = 30
REPLY_TTL = 120
FOLLOWER_TTL = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames of an output from `position` on; `end` closes the reply, `error` says why."""

    attempt: int
    position: int
    frames: bytes
    entry: bytes = b""
    end: int | None = None
    error: str | None = None


class Logs:
    """Outputs in Redis."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def append(self, token: Token, position: int, frames: bytes, *, size: int | None = None) -> str:
        """Add frames to the job's log: "ok", "already" for a repeat, "stale"."""
        answer = self._scripts.call(
            "append",
            id=token.id,
            attempt=token.attempt,
            uid=token.uid,
            position_at=position,
            size=len(frames) if size is None else size,
            piece=frames,
        )
        return str(answer.decode())

    def appended(self, id: str) -> int:
        """Return the position up to which the log has the current attempt's output."""
        with broker_errors():
            answer = self._connection.hget(self._keys("job", id), "log_sent")
        return int(answer or 0)

    def read(self, id: str, attempt: int) -> list[Piece]:
        """Return what the log holds of one attempt, by position; a gap shows in the positions."""
        with broker_errors():
            rows = self._connection.xrange(self._keys("log", id))
        pieces = [_piece(entry, fields) for entry, fields in rows]
        return sorted((p for p in pieces if p.attempt == attempt), key=lambda p: p.position)

    def ends(self, ids: Sequence[str]) -> Sequence[Piece | None]:
        """Return for each job the piece that its log got last, or None."""
        pipe = self._connection.pipeline(transaction=False)
        for id in ids:
            pipe.xrevrange(self._keys("log", id), count=1)
        with broker_errors():
            answers = pipe.execute()
        return [_piece(*rows[0]) if rows else None for rows in answers]

    def follow(self, id: str, reply: str) -> None:
        """Note that `reply` wants the job's live output, for every attempt to come."""
        pipe = self._connection.pipeline(transaction=True)
        pipe.sadd(self._keys("followers", id), reply)
        pipe.expire(self._keys("followers", id), FOLLOWER_TTL)
        with broker_errors():
            pipe.execute()

    def followers(self, id: str) -> list[str]:
        """Return the replies that want the job's live output."""
        with broker_errors():
            return [r.decode() for r in self._connection.smembers(self._keys("followers", id))]

    def unfollow(self, id: str, reply: str) -> None:
        """Forget a reply and what was sent to it."""
        pipe = self._connection.pipeline(transaction=True)
        pipe.srem(self._keys("followers", id), reply)
        pipe.delete(self._keys("reply", reply), self._keys("ack", reply))
        with broker_errors():
            pipe.execute()

    def ack(self, reply: str, position: int) -> None:
        """Say that the follower lives and has read up to `position`."""
        with broker_errors():
            self._connection.set(self._keys("ack", reply), position, ex=ACK_TTL)

    def receive(
        self,
        id: str,
        reply: str,
        *,
        since: bytes,
        position: int,
        patience: float,
        await_end: bool = True,
        count: int = 16,
    ) -> tuple[list[Piece], bytes | None, bool]:
        """Ack `position`, drop what was read, and block for more.

        Returns the next pieces, `count` at most, the job's signed outcome when it came with its
        end, and whether the job has ended or parked (which wakes the call unless `await_end` is
        False).
        """
        pipe = self._connection.pipeline(transaction=False)
        pipe.set(self._keys("ack", reply), position, ex=ACK_TTL)
        if since != b"0":
            pipe.xtrim(self._keys("reply", reply), minid=since, approximate=False)
        streams = {self._keys("reply", reply): since}
        if await_end:
            streams[self._keys("done", id)] = b"0"
        pipe.xread(streams, count=count, block=max(1, int(patience * 1000)))
        with broker_errors():
            answer: Any = pipe.execute()[-1]
        rows = answer.items() if isinstance(answer, dict) else (answer or [])
        pieces: list[Piece] = []
        outcome, ended = None, False
        for key, entries in rows:
            if key.decode() == self._keys("done", id):
                ended, outcome = True, entries[0][1].get(b"outcome")
            else:
                pieces += [_piece(entry, fields) for entry, fields in entries]
        return pieces, outcome, ended

    def acked(self, reply: str) -> int | None:
        """Return how far the follower has read, None when it is gone."""
        with broker_errors():
            answer = self._connection.get(self._keys("ack", reply))
        return None if answer is None else int(answer)

    def send(self, reply: str, piece: Piece) -> int | None:
        """Send a piece to a follower; returns how far it has read, None when it is gone."""
        fields: dict[str, Any] = {"a": piece.attempt, "p": piece.position, "d": piece.frames}
        if piece.end is not None:
            fields["end"] = piece.end
        if piece.error is not None:
            fields["error"] = piece.error
        pipe = self._connection.pipeline(transaction=False)
        pipe.xadd(self._keys("reply", reply), fields)
        pipe.expire(self._keys("reply", reply), REPLY_TTL)
        pipe.get(self._keys("ack", reply))
        with broker_errors():
            answer = pipe.execute()[-1]
        return None if answer is None else int(answer)

    def sent(self, reply: str) -> Piece | None:
        """Return the last piece that was sent to a follower and not yet dropped, or None."""
        with broker_errors():
            rows = self._connection.xrevrange(self._keys("reply", reply), count=1)
        return _piece(*rows[0]) if rows else None


def _piece(entry: bytes, fields: Mapping[bytes, bytes]) -> Piece:
    return Piece(
        attempt=int(fields[b"a"]),
        position=int(fields[b"p"]),
        frames=fields[b"d"],
        entry=entry,
        end=int(fields[b"end"]) if b"end" in fields else None,
        error=fields[b"error"].decode() if b"error" in fields else None,
    )
