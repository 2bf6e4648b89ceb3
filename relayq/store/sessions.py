"""Sessions of agents: on which host and in which directory each can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from relayq.errors import AmbiguousId, NoSuchSession
from relayq.model.sessions import Session
from relayq.store.keys import Keys
from relayq.store.leases import packed
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis

_PAGE = 200
_HINT = "relayq agent sessions"


class Sessions:
    """The sessions of the last 30 days."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def note(self, session: Session) -> None:
        """Keep where a session lives; its turns and its cost are added by the attempt's end."""
        self._scripts.call("session", session=json.dumps(packed(session)))

    def list(
        self, *, agent: str | None = None, host: str | None = None, limit: int = 50
    ) -> Sequence[Session]:
        """Return up to `limit` sessions, the one that was used last first."""
        fitting = (
            one for one in self._newest() if agent in (None, one.agent) and host in (None, one.host)
        )
        return [*islice(fitting, limit)]

    def latest(
        self,
        agent: str,
        *,
        account: str | None = None,
        host: str | None = None,
        cwd: str | None = None,
    ) -> Session | None:
        """Return the session that was used last: of this agent, and of what else is given."""
        for one in self._newest():
            is_meant = account in (None, one.account) and host in (None, one.host)
            if one.agent == agent and is_meant and cwd in (None, one.cwd):
                return one
        return None

    def fetch(self, text: str) -> Session:
        """Return the session whose id `text` is, or that only it begins."""
        with broker_errors():
            fields = self._connection.hgetall(self._keys("session", text))
            if fields:
                return _session(text, fields)
            ids = self._connection.zrevrange(self._keys("sessions"), 0, -1)
        matches = [id.decode() for id in ids if text and id.decode().startswith(text)]
        if len(matches) > 1:
            raise AmbiguousId(text, matches, what="sessions", where=_HINT)
        found = self._read(matches)
        if not found:
            raise NoSuchSession(f"no such session: {text}", hint=_HINT)
        return found[0]

    def _newest(self) -> Iterator[Session]:
        for start in count(0, _PAGE):
            with broker_errors():
                key = self._keys("sessions")
                ids = self._connection.zrevrange(key, start, start + _PAGE - 1)
            yield from self._read([id.decode() for id in ids])
            if len(ids) < _PAGE:
                return

    def _read(self, ids: Sequence[str]) -> Sequence[Session]:
        pipe = self._connection.pipeline(transaction=False)
        for id in ids:
            pipe.hgetall(self._keys("session", id))
        with broker_errors():
            rows = pipe.execute()
        return [_session(id, fields) for id, fields in zip(ids, rows, strict=True) if fields]


def _session(id: str, raw: Mapping[bytes, bytes]) -> Session:
    fields = {key.decode(): value.decode() for key, value in raw.items()}
    texts = ("agent", "account", "host", "cwd", "home", "version", "job")
    return Session(
        id=id,
        **{name: fields.get(name, "") for name in texts},
        turns=int(fields.get("turns", 0)),
        cost_usd=int(fields.get("cost_micro", 0)) / 1e6,
        at=float(fields.get("at", 0)),
    )
