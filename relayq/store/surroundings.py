"""What is around a job: its place in its queue, its deadline, what its hosts do instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from relayq.model.accounts import accounts_of
from relayq.model.jobs import JobRecord, JobState
from relayq.store.accounts import Accounts
from relayq.store.keys import Keys
from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis

    from relayq.model.explanations import Place

#: How many of the jobs that are ahead or running are worth their names.
_NAMED = 20


class Places:
    """Looks around a job."""

    def __init__(self, connection: redis.Redis, keys: Keys, accounts: Accounts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._accounts = accounts

    def around(self, record: JobRecord) -> Place:
        """Return what is around a job, in one round trip; an agent's takes two more."""
        from relayq.model.explanations import Place

        queue = self._keys("queue", record.queue)
        pipe = self._connection.pipeline(transaction=False)
        pipe.time()
        pipe.zrank(queue, record.id)
        pipe.zrange(queue, 0, _NAMED - 1)
        pipe.zscore(self._keys("state", record.state), record.id)
        pipe.hget(self._keys("job", record.id), "orphan")
        with broker_errors():
            (seconds, micros), rank, head, score, orphan = pipe.execute()
        ahead = rank or 0
        has_deadline = record.state in (JobState.RUNNING, JobState.LOST)
        return Place(
            now=seconds + micros / 1e6,
            ahead=ahead,
            first=tuple(id.decode(errors="replace") for id in head[:ahead]),
            deadline=score if has_deadline else None,
            orphan=orphan.decode(errors="replace").partition(" ")[0] if orphan else None,
            accounts=tuple(self._accounts.fetch(accounts_of(record.queue))),
        )

    def oldest_queued(self) -> float | None:
        """Return when the job was queued that waits the longest, None if none does."""
        with broker_errors():
            first = self._connection.zrange(self._keys("state", "queued"), 0, 0, withscores=True)
        return float(first[0][1]) if first else None

    def queued(self, queues: Iterable[str] = ()) -> dict[str, int]:
        """Return how many jobs wait in each of these queues, and in all queues of needs."""
        with broker_errors():
            registered = self._connection.zrange(self._keys("queues"), 0, -1)
            names = list(
                dict.fromkeys([*queues, *(name.decode(errors="replace") for name in registered)])
            )
            pipe = self._connection.pipeline(transaction=False)
            for name in names:
                pipe.zcard(self._keys("queue", name))
            return dict(zip(names, pipe.execute(), strict=True))

    def running_on(self, hosts: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return for each of the hosts the ids that it runs."""
        pipe = self._connection.pipeline(transaction=False)
        for host in hosts:
            pipe.smembers(self._keys("active", host))
        with broker_errors():
            answers = pipe.execute()
        return {
            host: tuple(sorted(id.decode(errors="replace") for id in ids))
            for host, ids in zip(hosts, answers, strict=True)
        }
