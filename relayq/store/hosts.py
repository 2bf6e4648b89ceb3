"""Hosts: registration, facts, what each runs, and their control lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import redis

from relayq.errors import NoSuchHost
from relayq.model.hosts import Host
from relayq.model.jobs import Token
from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    from relayq.store.leases import Registration

#: A control message that nobody took for so long is moot: what must last is in the record.
CONTROL_TTL = 120


class Hosts:
    """The machines that ever registered."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def register(
        self,
        who: Registration,
        *,
        lease: float,
        key_id: str,
        slots: int,
        version: str,
        facts: Mapping[str, Any],
    ) -> tuple[str, list[Token]]:
        """Take the host's name.

        Returns "ok" and the attempts that the records say it runs, "taken" while another
        install holds the name, or "wrong_key" when the data set was made with another fleet key.
        """
        word, *flat = self._scripts.call(
            "register",
            host=who.host,
            install=who.install,
            boot=who.boot,
            session=who.session,
            lease=lease,
            key_id=key_id,
            slots=slots,
            version=version,
            facts=json.dumps(facts),
        )
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return word.decode(), [Token(i.decode(), int(a), u.decode()) for i, a, u in triples]

    def list(self, *, online_within: float) -> list[Host]:
        """Return every host by name; online are those with a heartbeat that recent, in seconds."""
        with broker_errors():
            names = [n.decode() for n in self._connection.zrange(self._keys("hosts"), 0, -1)]
            pipe = self._connection.pipeline(transaction=False)
            pipe.time()
            for name in names:
                pipe.hgetall(self._keys("host", name))
                pipe.scard(self._keys("active", name))
                pipe.zcard(self._keys("queue", f"host.{name}"))
                pipe.zcard(self._keys("by_host", name))
            (seconds, micros), *rows = pipe.execute()
        at = seconds + micros / 1e6
        hosts = []
        for i, name in enumerate(names):
            raw, active, queued, claimed = rows[4 * i : 4 * i + 4]
            if raw:
                hosts.append(_host(name, raw, active, queued, claimed, at - online_within))
        return sorted(hosts, key=lambda host: host.name)

    def names(self) -> set[str]:
        """Return the names of all hosts that ever registered."""
        with broker_errors():
            return {n.decode() for n in self._connection.zrange(self._keys("hosts"), 0, -1)}

    def ask(self, host: str, message: Mapping[str, Any]) -> None:
        """Send a host's worker a message: it is taken at once, or not at all."""
        if host not in self.names():
            raise NoSuchHost(f"no such host: {host}", hint="relayq status")
        key = self._keys("control", host)
        pipe = self._connection.pipeline(transaction=True)
        pipe.rpush(key, json.dumps(message))
        pipe.ltrim(key, -1000, -1)
        pipe.expire(key, CONTROL_TTL)
        with broker_errors():
            pipe.execute()

    def listen(self, host: str, *, patience: float) -> dict[str, Any] | None:
        """Block up to `patience` seconds for a message to this host; garbage is None."""
        with broker_errors():
            taken: Any = self._connection.blpop([self._keys("control", host)], timeout=patience)
        if not taken:
            return None
        try:
            message = json.loads(taken[1])
        except ValueError:
            return None
        return message if isinstance(message, dict) else None


def _host(
    name: str, raw: Mapping[bytes, bytes], active: int, queued: int, claimed: int, since: float
) -> Host:
    fields = {key.decode(): value.decode() for key, value in raw.items()}
    seen = float(fields.get("seen", 0))
    return Host(
        name=name,
        install=fields.get("install", ""),
        boot=fields.get("boot", ""),
        slots=int(fields.get("slots", 0)),
        seen_at=seen,
        is_online=seen > since and "stopped" not in fields,
        version=fields.get("version", ""),
        active=active,
        queued=queued,
        finished=claimed - active,
        facts=json.loads(fields.get("facts", "{}")),
    )
