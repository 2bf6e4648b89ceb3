"""Brokers behind Redis Sentinel: their URL, and a connection that follows the master.

The URL is kombu's list, `sentinel://h1:26379;sentinel://h2:26379/0`, with one addition: a query
`?master=name` names the master, `mymaster` without it. A user and password are the master's;
the sentinels themselves are asked without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
from redis.sentinel import Sentinel

from relayq.errors import ConfigError

DEFAULT_MASTER = "mymaster"
DEFAULT_PORT = 26379
_FORM = "sentinel://host:26379;sentinel://host:26379/0?master=mymaster"


def is_sentinel_url(url: str) -> bool:
    """Tell whether a broker's URL names sentinels."""
    return url.startswith("sentinel://")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Where the sentinels are, and which master and database to ask them for."""

    addresses: tuple[tuple[str, int], ...]
    master: str = DEFAULT_MASTER
    db: int = 0
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str) -> SentinelUrl:
        """Read a URL; what the addresses say differently or twice is a ConfigError."""
        parts = [urlsplit(one) for one in url.split(";") if one]
        try:
            addresses = tuple((part.hostname or "", part.port or DEFAULT_PORT) for part in parts)
            dbs = {int(path) for part in parts if (path := part.path.strip("/"))}
        except ValueError as error:
            raise _wrong(str(error)) from error
        queries = {pair for part in parts for pair in parse_qsl(part.query)}
        asked = dict(queries)
        logins = {(part.username, part.password) for part in parts if part.password is not None}
        if {part.scheme for part in parts} != {"sentinel"} or not all(h for h, _ in addresses):
            raise _wrong("each address is sentinel://host:port")
        if len(dbs) > 1 or len(logins) > 1 or len(asked) < len(queries):
            raise _wrong("its addresses contradict each other")
        if unknown := asked.keys() - {"master"}:
            raise _wrong(f"it has no option {min(unknown)!r}")
        username, password = next(iter(logins), (None, None))
        return cls(
            addresses,
            master=asked.get("master", DEFAULT_MASTER),
            db=next(iter(dbs), 0),
            username=unquote(username) if username else None,
            password=unquote(password) if password else None,
        )

    @property
    def celery_url(self) -> str:
        """The same for Celery, which reads login and database from the first address only."""
        login = ""
        if self.password is not None:
            login = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@"
        return ";".join(
            f"sentinel://{login}{f'[{host}]' if ':' in host else host}:{port}/{self.db}"
            for host, port in self.addresses
        )

    def connect(self, **options: Any) -> redis.Redis:
        """Return a client of whichever Redis is the master; connects when it is first used."""
        asking = {
            key: value
            for key, value in options.items()
            if key.startswith("socket_") or key in ("protocol", "retry")
        }
        # redis-py has no types for it.
        make: Any = Sentinel
        client: redis.Redis = make(list(self.addresses), sentinel_kwargs=asking).master_for(
            self.master, db=self.db, username=self.username, password=self.password, **options
        )
        return client


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"broker.url isn't a list of sentinels: {why}", hint=f"its form: {_FORM}")
