"""What running jobs say of their progress, and the little of a record that a live line shows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from relayq.model.jobs import JobState, Token
from relayq.model.progress import Progress
from relayq.store.keys import Keys
from relayq.store.reading import Reader, instant
from relayq.store.records import noted_in
from relayq.store.scripts import Scripts, executed

_PAGE = 500
_SEEN = ("state", "host", "queue", "claimed", "started", "paused", "progress", "progress_at")


@dataclass(frozen=True, slots=True)
class Sight:
    """How a job stands at a glance."""

    id: str
    state: JobState
    host: str | None
    queue: str
    began_at: float | None
    paused: str | None
    progress: Progress | None


class ProgressNotes:
    """What jobs say of their progress; a record has it only while its attempt runs."""

    def __init__(
        self, connection: redis.Redis, keys: Keys, scripts: Scripts, reader: Reader
    ) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts
        self._reader = reader

    def note(self, token: Token, progress: Progress) -> str:
        """Note what an attempt says; returns "noted", or "stale" when it isn't the job's any more.

        The instant is the broker's. What is empty takes back what was said before.
        """
        said = "" if progress.is_empty else json.dumps(replace(progress, at=0.0).as_dict())
        word: bytes = self._scripts.call(
            "progress", id=token.id, attempt=token.attempt, uid=token.uid, said=said
        )
        return word.decode()

    def look(self, ids: Iterable[str]) -> dict[str, Sight]:
        """Return how those of these jobs stand that are known, without their specs."""
        found: dict[str, Sight] = {}
        wanted = list(ids)
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            pipe = self._connection.pipeline(transaction=False)
            for id in some:
                pipe.hmget(self._keys("job", id), _SEEN)
            pairs = zip(some, executed(pipe), strict=True)
            rows = [(id, row) for id, row in pairs if isinstance(row, Exception) or any(row)]
            found |= {sight.id: sight for sight in self._reader.all("job", _sight, rows)}
        return found


def _sight(id: str, row: Sequence[bytes | None] | Exception) -> Sight:
    if isinstance(row, Exception):
        raise ValueError("it isn't a record") from row
    fields = {k: v.decode() for k, v in zip(_SEEN, row, strict=True) if v is not None}
    began = fields.get("started") or fields.get("claimed")
    return Sight(
        id=id,
        state=JobState(fields["state"]),
        host=fields.get("host"),
        queue=fields.get("queue", ""),
        began_at=None if began is None else instant(began),
        paused=fields.get("paused"),
        progress=noted_in(fields),
    )
