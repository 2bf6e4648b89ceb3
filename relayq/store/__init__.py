"""The truth in Redis: records, leases, hosts, logs, inputs. The only Redis code.

`Store` is one data set reached over one connection pool; its parts are `jobs`, `leases`, `hosts`,
`logs` and `inputs`. Every method raises `BrokerUnavailable` when Redis can't be reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relayq.store.hosts import Hosts
from relayq.store.inputs import Inputs
from relayq.store.jobs import Jobs
from relayq.store.keys import PREFIX, Keys
from relayq.store.leases import Leases
from relayq.store.logs import Logs
from relayq.store.lookup import Lookup
from relayq.store.scripts import Scripts, broker_errors
from relayq.store.sentinels import SentinelUrl, is_sentinel_url

__all__ = ["Store", "connect"]


def connect(url: str, *, patience: float = 3.5) -> Store:
    """Return a store for the broker at `url`; connects when it is first used.

    `patience` bounds, in seconds, each connect and each answer that isn't a blocking wait.
    """
    # One silent retry: a connection that the broker closed while idle is replaced; every script
    # may be sent twice, since a repeat is answered without a second effect. Silence isn't retried:
    # a broker that doesn't answer is reported in less than 5 s.
    if url.startswith("redis+socket:"):  # as Celery calls it
        url = re.sub(r"([?&])virtual_host=", r"\1db=", url.replace("redis+socket:", "unix:", 1))
    options: dict[str, Any] = {
        "socket_timeout": patience,
        "socket_connect_timeout": min(patience, 3.5),
        "protocol": 2,
        "retry": Retry(NoBackoff(), 1, (redis.exceptions.ConnectionError,)),
    }
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    if is_sentinel_url(url):
        return Store(SentinelUrl.parse(url).connect(**options))
    return Store(redis.Redis.from_url(url, **options))


class Store:
    """One data set: everything that relayq knows."""

    def __init__(
        self,
        connection: redis.Redis,
        *,
        prefix: str = PREFIX,
        offset: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.connection = connection
        self.keys = Keys(prefix)
        scripts = Scripts(connection, self.keys, offset)
        self.jobs = Jobs(connection, self.keys, scripts)
        self.lookup = Lookup(connection, self.keys, self.jobs)
        self.leases = Leases(scripts)
        self.hosts = Hosts(connection, self.keys, scripts)
        self.logs = Logs(connection, self.keys, scripts)
        self.inputs = Inputs(connection, self.keys)

    def server_facts(self) -> dict[str, Any]:
        """Return Redis' own INFO."""
        with broker_errors():
            return dict(self.connection.info())

    def close(self) -> None:
        """Close every connection."""
        self.connection.close()
