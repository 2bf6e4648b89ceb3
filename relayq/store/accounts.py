"""Accounts of agents: their pauses, and how it stands with them.

What the claim and the end of an attempt do to an account is in their scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq.model.accounts import Account, accounts_of, room
from relayq.model.stats import DAY
from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis


class Accounts:
    """The accounts that the fleet used lately."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def pause(
        self,
        account: str,
        *,
        until: float | None = None,
        seconds: float | None = None,
        reason: str = "",
        who: str = "",
    ) -> float:
        """Have nothing start on an account until an instant, or for so many seconds.

        Returns the end of the pause: a later one, if that was said before.
        """
        if (until is None) == (seconds is None):
            raise ValueError("a pause has either an end or a length")
        answer = self._scripts.call(
            "limit",
            account=account,
            ends="" if until is None else f"{until:.6f}",
            seconds="" if seconds is None else seconds,
            reason=reason,
            who=who,
        )
        return float(answer)

    def resume(self, account: str, *, who: str = "") -> bool:
        """Have jobs start on an account again; False if it wasn't paused."""
        return bool(self._scripts.call("reopen", account=account, who=who) == b"reopened")

    def now(self) -> float:
        """Return the instant on the broker's clock."""
        with broker_errors():
            seconds, micros = self._connection.time()
        return float(seconds + micros / 1e6 + self._scripts.offset())

    def list(self) -> Sequence[Account]:
        """Return every account that was used lately, by its name."""
        with broker_errors():
            names = self._connection.zrange(self._keys("accounts"), 0, -1)
        return self.fetch(sorted(name.decode() for name in names))

    def fetch(self, names: Iterable[str]) -> Sequence[Account]:
        """Return how it stands with these accounts, in two round trips."""
        wanted = list(names)
        if not wanted:
            return []
        pipe = self._connection.pipeline(transaction=False)
        pipe.time()
        pipe.zrange(self._keys("queues"), 0, -1)
        for name in wanted:
            pipe.hgetall(self._keys("account", name))
            pipe.smembers(self._keys("account_active", name))
        with broker_errors():
            (seconds, micros), queues, *rows = pipe.execute()
        now = seconds + micros / 1e6 + self._scripts.offset()
        queued = self._queued([queue.decode() for queue in queues])
        return [
            _account(name, rows[2 * i], rows[2 * i + 1], queued.get(name, 0), now)
            for i, name in enumerate(wanted)
        ]

    def _queued(self, queues: Iterable[str]) -> Mapping[str, int]:
        """Return for each account how many queued jobs may use it."""
        of_agents = [queue for queue in queues if accounts_of(queue)]
        if not of_agents:
            return {}
        pipe = self._connection.pipeline(transaction=False)
        for queue in of_agents:
            pipe.zcard(self._keys("queue", queue))
        with broker_errors():
            lengths = pipe.execute()
        counts: dict[str, int] = {}
        for queue, length in zip(of_agents, lengths, strict=True):
            for name in accounts_of(queue):
                counts[name] = counts.get(name, 0) + length
        return counts


def _account(
    name: str, raw: Mapping[bytes, bytes], active: Iterable[bytes], queued: int, now: float
) -> Account:
    fields = {key.decode(): value.decode() for key, value in raw.items()}

    def future(field: str) -> float | None:
        instant = float(fields.get(field, 0))
        return instant if instant > now else None

    is_today = fields.get("day") == str(int(now // DAY))
    until = future("ends")
    budget = int(fields.get("budget", 0))
    limit = int(fields["limit"]) if "limit" in fields else None
    eased = int(fields["room"]) if "room" in fields else None
    return Account(
        name=name,
        until=until,
        reason=fields.get("reason", "") if until else "",
        probing="probe" in fields and until is None,
        next_at=future("next"),
        active=tuple(sorted(id.decode() for id in active)),
        limit=limit,
        room=None if limit is None else room(limit, eased, float(fields.get("eased", 0)), now),
        budget_usd=budget / 1e6 if budget else None,
        spent_usd=int(fields.get("spent", 0)) / 1e6 if is_today else 0.0,
        tokens=int(fields.get("tokens", 0)) if is_today else 0,
        queued=queued,
        used_at=float(fields["used"]) if "used" in fields else None,
    )
