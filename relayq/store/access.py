"""Redis' own users: for the owner of a broker, who alone may ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis


class Access:
    """Makes and removes users, and tells what users were refused."""

    def __init__(self, connection: redis.Redis) -> None:
        self._connection: Any = connection

    def put(self, name: str, words: Sequence[str]) -> None:
        """Make or change a user at once; who is connected as that user is cut off."""
        self.change(name, words)
        with broker_errors():
            self._connection.execute_command("CLIENT", "KILL", "USER", name)

    def change(self, name: str, words: Sequence[str]) -> None:
        """Make or change a user at once; its connections go on, with what it may now."""
        with broker_errors():
            self._connection.execute_command("ACL", "SETUSER", name, *words)

    def remove(self, name: str) -> bool:
        """Remove a user, which ends its connections; return whether there was one."""
        with broker_errors():
            return bool(self._connection.execute_command("ACL", "DELUSER", name))

    def names(self) -> list[str]:
        """Return the users that Redis knows."""
        with broker_errors():
            return sorted(_text(name) for name in self._connection.execute_command("ACL", "USERS"))

    def refusals(self) -> list[str]:
        """Return what users wanted and may not, a line for each sort, the newest first."""
        with broker_errors():
            rows = self._connection.execute_command("ACL", "LOG", 128)
        return [_line(row) for row in rows]


def _line(row: Any) -> str:
    pairs = row.items() if isinstance(row, dict) else zip(row[::2], row[1::2], strict=True)
    told = {_text(name): _text(value) for name, value in pairs}
    return (
        f"{told['username']}: {told['reason']} {told['object']} ({told['context']}, "
        f"{told['count']}x) {told['client-info']}"
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
