"""Brokers behind Redis Sentinel: their URL, and a connection that follows the master.

The URL is kombu's list, `sentinel://h1:26379;sentinel://h2:26379/0`, with options as its query:

* `master=name`, the name that the sentinels know the master by; `mymaster` without it.
* `replicas=1`: an answer counts once so many replicas have it as well, so a failover loses none of
  them; 0 for a master that has no replica, or to live with that.
* `sentinel_auth=yes`: the sentinels want the user and password, too. Else those are the master's,
  and the sentinels are asked without.
* `ssl_cert_reqs=required`, `ssl_ca_certs=file`: sentinels and Redis are spoken to over TLS.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from relayq.errors import ConfigError

DEFAULT_MASTER = "mymaster"
DEFAULT_PORT = 26379
#: How long Celery waits for a sentinel before it asks the next one.
_PATIENCE = 4.0
_FORM = "sentinel://host:26379;sentinel://host:26379/0?master=mymaster"
_OPTIONS = ("master", "replicas", "sentinel_auth", "ssl_cert_reqs", "ssl_ca_certs")


def is_sentinel_url(url: str) -> bool:
    """Tell whether a broker's URL names sentinels."""
    return url.startswith("sentinel://")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Where the sentinels are, which master and database to ask them for, and how.

    `ca_file` is empty where all CAs that this machine trusts will do.
    """

    addresses: tuple[tuple[str, int], ...]
    master: str = DEFAULT_MASTER
    db: int = 0
    username: str | None = None
    password: str | None = None
    replicas: int = 1
    has_sentinel_auth: bool = False
    is_encrypted: bool = False
    ca_file: str = ""

    @classmethod
    def parse(cls, url: str) -> SentinelUrl:
        """Read a URL; what the addresses say differently or twice is a ConfigError."""
        try:
            parts = [urlsplit(one) for one in url.split(";") if one]
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
        if unknown := asked.keys() - set(_OPTIONS):
            raise _wrong(f"it has no option {min(unknown)!r}")
        if not re.fullmatch("[0-9]", asked.get("replicas", "1")):
            raise _wrong("replicas is a number from 0 to 9")
        if asked.get("sentinel_auth", "no") not in ("yes", "no"):
            raise _wrong("sentinel_auth is yes or no")
        username, password = next(iter(logins), (None, None))
        return cls(
            addresses,
            master=asked.get("master", DEFAULT_MASTER),
            db=next(iter(dbs), 0),
            username=unquote(username) if username else None,
            password=unquote(password) if password else None,
            replicas=int(asked.get("replicas", "1")),
            has_sentinel_auth=asked.get("sentinel_auth") == "yes",
            is_encrypted="ssl_cert_reqs" in asked,
            ca_file=asked.get("ssl_ca_certs", ""),
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

    @property
    def celery_settings(self) -> dict[str, Any]:
        """What Celery must be told besides; its transport options are below their name."""
        # kombu gives its own times to Redis alone: one sentinel that hangs would hold it up.
        asking = {**self._login, **_patient(_PATIENCE)}
        if self.is_encrypted:
            asking |= {"ssl": True, **self._checks}
        transport = {"master_name": self.master, "sentinel_kwargs": asking}
        more = {"broker_use_ssl": self._checks} if self.is_encrypted else {}
        return {"broker_transport_options": transport, **more}

    @property
    def _login(self) -> dict[str, Any]:
        """How one logs in to a sentinel."""
        if not self.has_sentinel_auth:
            return {}
        return {"username": self.username, "password": self.password}

    @property
    def _checks(self) -> dict[str, Any]:
        """How a certificate is checked."""
        return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": self.ca_file or None}

    def primaries(self, patience: float) -> dict[str, str | None]:
        """Return whom each sentinel names as the primary, by its address; None for no answer."""
        return {
            f"{host}:{port}": self._primary(host, port, patience) for host, port in self.addresses
        }

    def _primary(self, host: str, port: int, patience: float) -> str | None:
        options = {**self._login, **_patient(patience)}
        if self.is_encrypted:
            options |= {"ssl": True, **self._checks}
        asked = redis.Redis(host=host, port=port, protocol=2, **options)
        try:
            masters: Any = asked.sentinel_masters()
        except redis.RedisError:
            return None
        finally:
            asked.close()
        known = masters.get(self.master)
        return None if known is None else f"{known['ip']}:{known['port']}"

    def connect(self, **options: Any) -> redis.Redis:
        """Return a client of whichever Redis is the master; connects when it is first used."""
        if self.is_encrypted:
            options |= {"ssl": True, **self._checks}
        asking = {
            key: value
            for key, value in options.items()
            if key.startswith(("socket_", "ssl")) or key in ("protocol", "retry")
        } | self._login
        # redis-py has no types for it.
        make: Any = Sentinel
        client: redis.Redis = make(list(self.addresses), sentinel_kwargs=asking).master_for(
            self.master, db=self.db, username=self.username, password=self.password, **options
        )
        return client


def _patient(seconds: float) -> dict[str, Any]:
    """Return the options by which a sentinel is asked once, and not for long."""
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
    }


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"broker.url isn't a list of sentinels: {why}", hint=f"its form: {_FORM}")
