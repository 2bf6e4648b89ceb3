"""The truth in Redis: records, leases, hosts, logs, inputs. The only Redis code.

`Store` is one data set reached over one connection pool; its parts are `jobs`, `leases`, `hosts`,
`logs`, `inputs`, `lookup`, `flows` (runs of workflows), `events` (the audit trail), `pauses`,
`progress`, `checkpoints`, `accounts`, `sessions` and `questions` (of agents), `schedules` (what
recurs), `artifacts` (files of jobs), `sweep` (mending), `places` (what is around a job),
`server` (Redis itself) and `access` (its users), each loaded when it is first used: a command that
submits needs the first only. Every method raises `BrokerUnavailable` when Redis can't be reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relayq import tls
from relayq.store.direct import Address, Direct
from relayq.store.jobs import Jobs
from relayq.store.keys import PREFIX, Keys
from relayq.store.reading import Reader
from relayq.store.replicas import NONE, Replicas
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis

    from relayq.store.access import Access
    from relayq.store.accounts import Accounts
    from relayq.store.analyses import Analyses
    from relayq.store.artifacts import ArtifactStore
    from relayq.store.checkpoints import KeptCheckpoints
    from relayq.store.events import Events
    from relayq.store.flows import Flows
    from relayq.store.hosts import Hosts
    from relayq.store.inputs import Inputs
    from relayq.store.leases import Leases
    from relayq.store.logs import Logs
    from relayq.store.lookup import Lookup
    from relayq.store.pauses import Pauses
    from relayq.store.progress import ProgressNotes
    from relayq.store.questions import Questions
    from relayq.store.rotations import Rotations
    from relayq.store.schedules import Schedules
    from relayq.store.server import ServerFacts
    from relayq.store.sessions import Sessions
    from relayq.store.stats import Stats
    from relayq.store.surroundings import Places
    from relayq.store.sweep import Sweep

__all__ = ["Store", "connect", "unintroduced"]

#: The part of the patience with an answer in which replicas must have it.
_FOR_REPLICAS = 0.6


def connect(url: str, *, patience: float = 3.5, is_brief: bool = False) -> Store:
    """Return a store for the broker at `url`; connects when it is first used.

    `patience` bounds, in seconds, each connect and each answer that isn't a blocking wait.
    `is_brief` says that little is asked, and by few threads: then redis-py isn't imported for it.
    Raises ConfigError for a URL that has nobody's certificate checked.
    """
    tls.check(url)
    if url.startswith("redis+socket:"):  # as Celery calls it
        url = re.sub(r"([?&])virtual_host=", r"\1db=", url.replace("redis+socket:", "unix:", 1))
    address = Address.parse(url) if is_brief else None
    if address is None:
        return Store(_whole(url, patience), replicas=_replicas(url, patience))
    return Store(Direct(address, patience=patience, whole=lambda: _whole(url, patience)))


def _replicas(url: str, patience: float) -> Replicas:
    """Return how many replicas must have what was answered: none but behind sentinels."""
    if not url.startswith("sentinel://"):
        return NONE
    from relayq.store.sentinels import SentinelUrl

    return Replicas(SentinelUrl.parse(url).replicas, patience * _FOR_REPLICAS)


def unintroduced() -> dict[str, Any]:
    """Return the options with which redis-py, as it connects, says who it is and nothing more.

    It would tell its own name and version, and with RESP3 (redis-py 8) ask for notices of
    maintenance: three round trips a connection, 5 ms to look the version up, and commands that a
    broker's user has no right to.
    """
    import redis

    # Before redis-py 7.2 there were other words for it.
    words = ("driver_info",) if hasattr(redis, "DriverInfo") else ("lib_name", "lib_version")
    return {**dict.fromkeys(words), "protocol": 2}


def _whole(url: str, patience: float) -> redis.Redis:
    """Return a client of redis-py."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # One silent retry: a connection that the broker closed while idle is replaced; every script
    # may be sent twice, since a repeat is answered without a second effect. Silence isn't retried:
    # a broker that doesn't answer is reported in less than 5 s.
    options: dict[str, Any] = {
        "socket_timeout": patience,
        "socket_connect_timeout": min(patience, 3.5),
        "retry": Retry(NoBackoff(), 1, (redis.exceptions.ConnectionError,)),
    }
    options |= unintroduced()
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    if url.startswith("sentinel://"):
        from relayq.store.sentinels import SentinelUrl

        return SentinelUrl.parse(url).connect(**options)
    return redis.Redis.from_url(url, **options)


class Store:
    """One data set: everything that relayq knows."""

    def __init__(
        self,
        connection: redis.Redis | Direct,
        *,
        prefix: str = PREFIX,
        offset: Callable[[], float] = lambda: 0.0,
        replicas: Replicas = NONE,
    ) -> None:
        # Direct answers as redis-py does, which types an answer as what any protocol may give.
        asked: Any = connection
        self.connection: redis.Redis = asked
        self.keys = Keys(prefix)
        self._scripts = Scripts(self.connection, self.keys, offset, replicas)
        self.reader = Reader()
        self.jobs = Jobs(self.connection, self.keys, self._scripts, self.reader)

    @cached_property
    def lookup(self) -> Lookup:
        """Jobs as people name them."""
        from relayq.store.lookup import Lookup

        return Lookup(self.connection, self.keys, self.jobs)

    @cached_property
    def leases(self) -> Leases:
        """What workers ask and say of their attempts."""
        from relayq.store.leases import Leases

        return Leases(self.connection, self.keys, self._scripts)

    @cached_property
    def hosts(self) -> Hosts:
        """The machines that ever registered."""
        from relayq.store.hosts import Hosts

        return Hosts(self.connection, self.keys, self._scripts, self.reader)

    @cached_property
    def logs(self) -> Logs:
        """What jobs write."""
        from relayq.store.logs import Logs

        return Logs(self.connection, self.keys, self._scripts)

    @cached_property
    def flows(self) -> Flows:
        """Runs of workflows."""
        from relayq.store.flows import Flows

        return Flows(self.connection, self.keys, self._scripts, self.jobs, self.reader)

    @cached_property
    def inputs(self) -> Inputs:
        """What jobs read."""
        from relayq.store.inputs import Inputs

        return Inputs(self.connection, self.keys)

    @cached_property
    def events(self) -> Events:
        """What happened."""
        from relayq.store.events import Events

        return Events(self.connection, self.keys)

    @cached_property
    def pauses(self) -> Pauses:
        """What stands still."""
        from relayq.store.pauses import Pauses

        return Pauses(self._scripts)

    @cached_property
    def progress(self) -> ProgressNotes:
        """How far running jobs say they are."""
        from relayq.store.progress import ProgressNotes

        return ProgressNotes(self.connection, self.keys, self._scripts, self.reader)

    @cached_property
    def checkpoints(self) -> KeptCheckpoints:
        """What jobs leave for their next attempts."""
        from relayq.store.checkpoints import KeptCheckpoints

        return KeptCheckpoints(self.connection, self.keys, self._scripts)

    @cached_property
    def accounts(self) -> Accounts:
        """Accounts of agents."""
        from relayq.store.accounts import Accounts

        return Accounts(self.connection, self.keys, self._scripts)

    @cached_property
    def rotations(self) -> Rotations:
        """The fleet's keys, one after the other."""
        from relayq.store.rotations import Rotations

        return Rotations(self.connection, self.keys, self._scripts)

    @cached_property
    def analyses(self) -> Analyses:
        """Runs of analyses."""
        from relayq.store.analyses import Analyses

        return Analyses(self.connection, self.keys)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Files of jobs."""
        from relayq.store.artifacts import ArtifactStore

        return ArtifactStore(self.connection, self.keys, self._scripts)

    @cached_property
    def sessions(self) -> Sessions:
        """Sessions of agents."""
        from relayq.store.sessions import Sessions

        return Sessions(self.connection, self.keys, self._scripts)

    @cached_property
    def questions(self) -> Questions:
        """What jobs ask people."""
        from relayq.store.questions import Questions

        return Questions(self.connection, self.keys, self._scripts)

    @cached_property
    def schedules(self) -> Schedules:
        """What recurs."""
        from relayq.store.schedules import Schedules

        return Schedules(self.connection, self.keys, self._scripts, self.jobs, self.reader)

    @cached_property
    def sweep(self) -> Sweep:
        """What mends the indices."""
        from relayq.store.sweep import Sweep

        return Sweep(self.connection, self.keys, self._scripts)

    @cached_property
    def server(self) -> ServerFacts:
        """Redis itself."""
        from relayq.store.server import ServerFacts

        return ServerFacts(self.connection)

    @cached_property
    def access(self) -> Access:
        """Redis' own users."""
        from relayq.store.access import Access

        return Access(self.connection)

    @cached_property
    def stats(self) -> Stats:
        """How many attempts ended how."""
        from relayq.store.stats import Stats

        return Stats(self.connection, self.keys)

    @cached_property
    def places(self) -> Places:
        """What is around a job."""
        from relayq.store.surroundings import Places

        return Places(self.connection, self.keys, self.accounts)

    def server_facts(self) -> dict[str, Any]:
        """Return Redis' own INFO."""
        with broker_errors():
            return dict(self.connection.info())

    def key_id(self) -> str | None:
        """Return the id of the fleet key that this data set was made with, None if it is new."""
        with broker_errors():
            found: Any = self.connection.hget(self.keys("meta"), "key_id")
        return None if found is None else str(found.decode())

    def seen_run_id(self) -> str | None:
        """Return the run of Redis that the workers saw last."""
        with broker_errors():
            found: Any = self.connection.hget(self.keys("meta"), "run_id")
        return None if found is None else str(found.decode())

    def back_up(self, path: Path) -> int:
        """Write a copy of everything into a file; returns its bytes."""
        from relayq.store.backups import write_backup

        return write_backup(self.connection, path)

    def close(self) -> None:
        """Close every connection."""
        self.connection.close()
