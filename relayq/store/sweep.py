"""Mending the records' indices: a slow walk over all keys, a bounded step at a time.

Every script keeps records and indices in step, so there is nothing to mend until something else
writes into Redis, or a broker comes back without its last writes. The walk's position is kept in
Redis, so that all workers walk it together; a step that two of them do is harmless.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq.store.keys import KEYS, Keys
from relayq.store.scripts import Scripts, broker_errors, executed

if TYPE_CHECKING:
    import redis

#: How many keys or members a step looks at.
STEP = 500
#: How many of them one call of the script mends: it holds up every other client.
_BATCH = 100
#: How many indices a step looks at: most names are those of a few jobs.
_INDICES_A_STEP = 50
#: Keys whose members must be jobs that say so themselves.
_INDICES = (
    *("ids", "state", "queue", "queues", "active", "by_host", "name", "group", "hosts"),
    *("overflow", "expiring", "companions", "users"),
    *("halted", "flows"),
)
#: The same, of agents' jobs.
_OF_AGENTS = ("account_active", "asking")
#: Keys that are one job's, whether its record is still there or not.
_OF_A_JOB = ("job", "spec", "outcome", "late", "log", "dependents", "companions", "files")


class Sweep:
    """The walk."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def step(self, *, lease: float, template: str) -> Sequence[tuple[str, str]]:
        """Look at the next `STEP` keys or members; returns (what was done, name) pairs.

        `lease` is what a running job gets whose lease can't be found.
        """
        with broker_errors():
            kept = self._connection.hget(self._keys("meta"), "sweep")
        place = _Place.read(kept)
        work = self._members(place) if place.indices else self._next_keys(place)
        done: list[tuple[str, str]] = []
        for (index, suffix), members in work.items():
            names = list(members)
            for start in range(0, len(names), _BATCH):
                answer = self._scripts.call(
                    "sweep",
                    [_raw(one) for one in names[start : start + _BATCH]],
                    template=template,
                    lease=lease,
                    index=index,
                    suffix=_raw(suffix),
                )
                words = [part.decode(errors="replace") for part in answer]
                done += zip(words[::2], words[1::2], strict=True)
        with broker_errors():
            self._connection.hset(self._keys("meta"), "sweep", place.text())
        return done

    def is_at_start(self) -> bool:
        """Whether the last step ended a round over all keys."""
        with broker_errors():
            kept = self._connection.hget(self._keys("meta"), "sweep")
        return _Place.read(kept).is_start

    def _next_keys(self, place: _Place) -> Mapping[tuple[str, str], Iterable[str | bytes]]:
        """Find the next keys; of indices only note that their members are to be looked at."""
        with broker_errors():
            place.cursor, found = self._connection.scan(
                place.cursor, match=f"{self._keys.prefix}*", count=STEP
            )
        jobs: dict[str, None] = {}
        work: dict[tuple[str, str], list[str | bytes]] = {}
        for key in found:
            name, suffix = self._keys.parts(_text(key))
            if name in _INDICES or name in _OF_AGENTS:
                place.indices.append([name, suffix])
            if name in _OF_A_JOB or name == "answer":
                jobs[suffix] = None
            elif name in ("host", "unique", "flow"):
                work.setdefault((name, ""), []).append(suffix)
        return {("job", ""): list(jobs), **work}

    def _members(self, place: _Place) -> Mapping[tuple[str, str], Iterable[str | bytes]]:
        """Read the next members, of some small indices or of a large one, in one round trip."""
        pipe = self._connection.pipeline(transaction=False)
        asked = place.indices[:_INDICES_A_STEP]
        for i, (name, suffix) in enumerate(asked):
            scan = pipe.sscan if KEYS[name][1] == "set" else pipe.zscan
            scan(_raw(self._keys(name, suffix)), 0 if i else place.member, count=STEP)
        answers = executed(pipe)
        work: dict[tuple[str, str], Iterable[str | bytes]] = {}
        for (name, suffix), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Exception):
                # No index at all: it would be in the way of all who want to write there.
                with broker_errors():
                    self._connection.delete(_raw(self._keys(name, suffix)))
                place.indices.pop(0)
                continue
            cursor, found = answer
            work[name, suffix] = [row[0] if isinstance(row, tuple) else row for row in found]
            place.member = cursor
            if cursor:
                break
            place.indices.pop(0)
        return work


def _text(key: bytes) -> str:
    """Return a key as text that `_raw` makes the same key again: it may hold any bytes."""
    return key.decode(errors="surrogateescape")


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="surrogateescape")


class _Place:
    """Where the walk is: its cursor over the keys, the indices to do, the cursor in the first."""

    def __init__(self, cursor: int = 0, indices: Iterable[list[str]] = (), member: int = 0) -> None:
        self.cursor = cursor
        self.indices = list(indices)
        self.member = member

    @classmethod
    def read(cls, kept: bytes | None) -> _Place:
        """Return the place that was kept, else the start."""
        try:
            cursor, indices, member = json.loads(kept or b"[0, [], 0]")
            return cls(int(cursor), [[str(name), str(of)] for name, of in indices], int(member))
        except (TypeError, ValueError):
            return cls()

    @property
    def is_start(self) -> bool:
        """Whether a new round begins here."""
        return self.cursor == 0 and not self.indices

    def text(self) -> str:
        """Return the place as it is kept."""
        return json.dumps([self.cursor, self.indices, self.member])
