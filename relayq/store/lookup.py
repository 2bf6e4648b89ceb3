"""Finding jobs as people name them: the last ones, by name, by group, by what their records say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from relayq.errors import AmbiguousId, NoSuchJob
from relayq.model.jobs import ID_LENGTH, JobRecord, JobState, normal_id
from relayq.model.selectors import (
    SHORTEST_PREFIX,
    Group,
    Last,
    Word,
    parse,
    passes,
    states_of,
)
from relayq.store.jobs import Jobs
from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis

#: How many jobs one look-up returns at most.
MOST = 10_000


class Lookup:
    """Selectors and filters, made ids and records."""

    def __init__(self, connection: redis.Redis, keys: Keys, jobs: Jobs) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._jobs = jobs

    def select(self, texts: Sequence[str]) -> list[str]:
        """Return the ids that the selectors name, each once, in their order.

        One that names nothing raises NoSuchJob, a prefix of several ids AmbiguousId.
        """
        ids = self._whole(texts)
        chosen = ([ids[text]] if text in ids else self._select(text) for text in texts)
        return list(dict.fromkeys(id for some in chosen for id in some))

    def all(self, filters: Mapping[str, str]) -> list[str]:
        """Return the ids of all jobs, or of those that pass the filters, the newest first."""
        if filters:
            return [record.id for record in self._filtered(filters)]
        return self._everything()

    def narrow(self, ids: Sequence[str], filters: Mapping[str, str]) -> list[str]:
        """Return those of the ids whose records pass the filters."""
        if not filters:
            return list(ids)
        return [record.id for record in self._jobs.fetch_many(ids) if passes(record, filters)]

    def _everything(self) -> list[str]:
        pipe = self._connection.pipeline(transaction=False)
        for state in JobState:
            pipe.zrange(self._keys("state", state), 0, MOST - 1, desc=True, withscores=True)
        with broker_errors():
            rows = [row for answer in pipe.execute() for row in answer]
        rows.sort(key=lambda row: row[1], reverse=True)
        # A job that moved between two of the answers is in both.
        return list(dict.fromkeys(id.decode(errors="replace") for id, _ in rows))[:MOST]

    def _filtered(self, filters: Mapping[str, str]) -> list[JobRecord]:
        for key in ("name", "group"):
            pattern = filters.get(key, "*")
            if "*" not in pattern:
                records = self._jobs.fetch_many(self._numbered(key, pattern)[-MOST:][::-1])
                return [record for record in records if passes(record, filters)]
        host = filters.get("host", "*")
        records = list(
            self._jobs.list(
                states=states_of(filters), host=None if "*" in host else host, limit=MOST
            )
        )
        return [record for record in records if passes(record, filters)]

    def _whole(self, texts: Sequence[str]) -> dict[str, str]:
        """Return those of the texts that are whole ids, as they are stored; many cost one call."""
        typed = [(text, normal_id(text)) for text in texts if len(text.strip()) == ID_LENGTH]
        if not typed:
            return {}
        with broker_errors():
            known = self._connection.zmscore(self._keys("ids"), [id for _, id in typed])
        return {text: id for (text, id), score in zip(typed, known, strict=True) if score == 0}

    def _select(self, text: str) -> Sequence[str]:
        match parse(text):
            case Last(back):
                return [self._recent(back)]
            case Group(name, first, last):
                ids = self._numbered("group", name, first, last)
                if not ids:
                    raise NoSuchJob(f"no such jobs: {text}", hint="relayq ps -a")
                return ids
            case Word(word):
                return [self._find(word)]

    def _recent(self, back: int) -> str:
        found = next(islice(self._remembered(), back, None), None)
        if found is not None:
            return found
        raise NoSuchJob("no job was submitted so long ago", hint="relayq ps -a")

    def _remembered(self) -> Iterator[str]:
        """Yield the ids that were submitted last and are still known, the newest first."""
        with broker_errors():
            ids = self._connection.lrange(self._keys("recent"), 0, -1)
        for start in range(0, len(ids), 50):
            page = ids[start : start + 50]
            with broker_errors():
                known = self._connection.zmscore(self._keys("ids"), page)
            yield from (
                id.decode(errors="replace")
                for id, score in zip(page, known, strict=True)
                if score == 0
            )

    def _numbered(self, key: str, name: str, first: int = 1, last: int | None = None) -> list[str]:
        """Return the ids of a name or group by their numbers, in order of submission."""
        until = "+inf" if last is None else last
        with broker_errors():
            ids = self._connection.zrangebyscore(self._keys(key, name), first, until)
        return [id.decode(errors="replace") for id in ids]

    def _find(self, word: str) -> str:
        """Return the newest job of this name, or the only one whose id begins so."""
        with broker_errors():
            named: Any = self._connection.zrevrange(self._keys("name", word), 0, 0)
        newest: list[str] = [id.decode(errors="replace") for id in named]
        try:
            found = self._jobs.find(word) if len(word) >= SHORTEST_PREFIX else None
        except NoSuchJob:
            found = None
        except AmbiguousId as error:
            if newest:
                raise AmbiguousId(word, [*newest, *error.matches]) from error
            raise
        if found is not None and newest not in ([], [found]):
            raise AmbiguousId(word, [*newest, found])
        if found is not None:
            return found
        if newest:
            return newest[0]
        is_short = len(normal_id(word)) < SHORTEST_PREFIX
        rule = f" (an id needs {SHORTEST_PREFIX} letters)" if word and is_short else ""
        raise NoSuchJob(f"no such job: {word}{rule}", hint="relayq ps -a")
