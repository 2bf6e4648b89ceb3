"""What jobs leave for their next attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relayq.model.jobs import Token
from relayq.store.keys import Keys
from relayq.store.scripts import Scripts, broker_errors

if TYPE_CHECKING:
    import redis


class KeptCheckpoints:
    """The last checkpoint of each job that has one."""

    def __init__(self, connection: redis.Redis, keys: Keys, scripts: Scripts) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection
        self._keys = keys
        self._scripts = scripts

    def keep(self, token: Token, content: bytes) -> str:
        """Keep what an attempt leaves; returns "kept", or "stale" when the job isn't its any more.

        What is empty takes back what was kept before.
        """
        word: bytes = self._scripts.call(
            "checkpoint", id=token.id, attempt=token.attempt, uid=token.uid, content=content
        )
        return word.decode()

    def of(self, id: str) -> bytes | None:
        """Return what the attempts of a job left, None if they left nothing."""
        with broker_errors():
            found: bytes | None = self._connection.get(self._keys("checkpoint", id))
        return found
