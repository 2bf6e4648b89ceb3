"""Hosts: registration, facts, what each runs, and their control lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq.errors import Conflict, NoSuchHost
from relayq.model.hostfacts import misshapen
from relayq.model.hosts import Host, overlaid, relabelled
from relayq.model.jobs import Token
from relayq.store.keys import Keys
from relayq.store.reading import Reader, instant, texts
from relayq.store.scripts import Scripts, broker_errors, executed

if TYPE_CHECKING:
    import redis

    from relayq.store.leases import Registration

#: A control message that nobody took for so long is moot: what must last is in the record.
CONTROL_TTL = 120
#: Why a host can't be forgotten, and what to type about it.
_STILL = {
    "online": "{host} is online",
    "running": "{host} still has jobs that run there, for all that is known",
    "queued": "jobs wait for {host}",
}
_INSTEAD = {
    "online": "relayq worker stop, there",
    "running": "relayq ps --on {host}",
    "queued": "relayq move --all any --filter host={host}",
}


class Hosts:
    """The machines that ever registered."""

    def __init__(
        self, connection: redis.Redis, keys: Keys, scripts: Scripts, reader: Reader
    ) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts
        self._reader = reader

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

    def publish(self, who: Registration, facts: Mapping[str, Any]) -> bool:
        """Replace the facts of a host; False if another install has its name now."""
        word = self._scripts.call(
            "publish", host=who.host, install=who.install, facts=json.dumps(facts)
        )
        return bool(word == b"ok")

    def overlay(self, host: str, field: str = "labels") -> str:
        """Return what the fleet says of a host's labels or `caps`, such as `+heavy,-slow`."""
        with broker_errors():
            found = self._connection.hget(self._keys("host", host), field)
        return (found or b"").decode()

    def label(self, host: str, changes: Sequence[str]) -> str:
        """Change the fleet's own labels of a host (`+x`, `-y`, `=z`); returns the overlay."""
        return self._say(host, "labels", changes)

    def declare(self, host: str, changes: Sequence[str]) -> str:
        """Change what the fleet says that a host can do, in the same way; returns the overlay."""
        return self._say(host, "caps", changes)

    def _say(self, host: str, field: str, changes: Sequence[str]) -> str:
        while True:
            before = self.overlay(host, field)
            after = relabelled(before, changes)
            word = self._scripts.call("relabel", host=host, field=field, before=before, after=after)
            if word == b"unknown":
                raise _no_such(host)
            if word == b"ok":
                return after

    def drain(self, host: str, *, reason: str = "", undo: bool = False, who: str = "") -> bool:
        """Have a host take nothing new, or work again; False if that was so already."""
        word = self._scripts.call(
            "drain", host=host, undo="1" if undo else "", reason=reason, who=who
        )
        if word == b"unknown":
            raise _no_such(host)
        return bool(word == b"ok")

    def dismiss(self, host: str, *, lease: float, heir: str = "", who: str = "") -> None:
        """Forget a host; Conflict while it is online, runs something, or has jobs waiting.

        `heir` is the host that has its name among its aliases from now on.
        """
        word = self._scripts.call("dismiss", host=host, heir=heir, lease=lease, who=who).decode()
        if word == "unknown":
            raise _no_such(host)
        if word == "no heir":
            raise _no_such(heir)
        if word != "ok":
            raise Conflict(_STILL[word].format(host=host), hint=_INSTEAD[word].format(host=host))

    def list(self, *, online_within: float) -> list[Host]:
        """Return every host by name; online are those with a heartbeat that recent, in seconds."""
        with broker_errors():
            names = [
                n.decode(errors="replace")
                for n in self._connection.zrange(self._keys("hosts"), 0, -1)
            ]
        pipe = self._connection.pipeline(transaction=False)
        pipe.time()
        for name in names:
            pipe.hgetall(self._keys("host", name))
            pipe.scard(self._keys("active", name))
            pipe.zcard(self._keys("queue", f"host.{name}"))
            pipe.zcard(self._keys("by_host", name))
        (seconds, micros), *told = executed(pipe)
        since = seconds + micros / 1e6 - online_within
        rows = [(name, *told[4 * i : 4 * i + 4], since) for i, name in enumerate(names)]
        hosts = self._reader.all("host", _host, [row for row in rows if row[1]])
        return sorted(hosts, key=lambda host: host.name)

    def is_any_near(self, *, within: float) -> bool:
        """Tell whether any host had a heartbeat that recently, in seconds, if it stopped or not."""
        pipe = self._connection.pipeline(transaction=False)
        pipe.time()
        pipe.zrange(self._keys("hosts"), -1, -1, withscores=True)
        with broker_errors():
            (seconds, micros), newest = pipe.execute()
        return any(seen > seconds + micros / 1e6 - within for _, seen in newest)

    def names(self) -> set[str]:
        """Return the names of all hosts that ever registered."""
        with broker_errors():
            return {
                n.decode(errors="replace")
                for n in self._connection.zrange(self._keys("hosts"), 0, -1)
            }

    def ask(self, host: str, message: Mapping[str, Any]) -> None:
        """Send a host's worker a message: it is taken at once, or not at all."""
        if host not in self.names():
            raise _no_such(host)
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


def _no_such(host: str) -> NoSuchHost:
    return NoSuchHost(f"no such host: {host}", hint="relayq hosts")


def _host(
    name: str, raw: Mapping[bytes, bytes], active: int, queued: int, claimed: int, since: float
) -> Host:
    fields = texts(raw)
    seen = instant(fields.get("seen", "0"))
    words = (name, fields.get("version", ""), fields.get("install", ""), fields.get("boot", ""))
    if not "".join(words).isprintable():
        raise ValueError("its name or its version isn't a word")
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
        drained_at=instant(fields["drained"]) if "drained" in fields else None,
        drained_reason=fields.get("drained_reason", ""),
        facts=_facts(fields),
    )


def _facts(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what the host says of itself, and what the fleet says otherwise."""
    facts = {**json.loads(fields.get("facts", "{}")), **json.loads(fields.get("load", "{}"))}
    if wrong := misshapen(facts):
        raise ValueError(f"what it says of its {wrong} makes no sense")
    for field, fact in (("labels", "labels"), ("caps", "capabilities")):
        if overlay := fields.get(field):
            facts[fact] = list(overlaid(facts.get(fact, ()), overlay))
    if was := fields.get("was"):
        facts["aliases"] = [*dict.fromkeys([*facts.get("aliases", ()), *was.split(",")])]
    return facts
