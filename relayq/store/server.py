"""Redis itself: how it is set up, how it fares, what time it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.model.access import ADMIN
from relayq.store.scripts import broker_errors

if TYPE_CHECKING:
    import redis

#: What INFO calls replicas, and after how many seconds one isn't up to date any more.
_REPLICAS = tuple(f"slave{number}" for number in range(10))
_LAGS = 10
#: What `doctor` compares with what relayq's promises rest on.
SETTINGS = (
    "appendonly",
    "appendfsync",
    "maxmemory",
    "maxmemory-policy",
    "save",
    "aof-load-truncated",
    "timeout",
    "maxclients",
    "protected-mode",
    "bind",
)


@dataclass(frozen=True, slots=True)
class Server:
    """What Redis says of itself. Sizes are bytes; `saved_at` is when the last snapshot was made.

    `is_aof_ok` and `is_rdb_ok` say how the last write of the append-only file and of a snapshot
    went; `aof_delayed` counts the writes that waited for the disk.
    """

    version: str
    run_id: str
    port: int
    pid: int
    uptime: float
    memory: int
    memory_limit: int
    memory_policy: str
    clients: int
    is_loading: bool
    has_aof: bool
    is_aof_ok: bool
    is_rdb_ok: bool
    aof_bytes: int
    aof_delayed: int
    saved_at: float
    replica_of: str | None
    #: How many replicas there are that have what it has, or nearly.
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class ServerClock:
    """Redis' clock beside ours: `offset` is how far it is ahead, `latency` the round trip.

    Nothing between two machines can tell an offset that is smaller than half of the round trip.
    """

    at: float
    offset: float
    latency: float


@dataclass(frozen=True, slots=True)
class Connection:
    """Somebody who is connected: the address, the name if one was given, the last command."""

    address: str
    name: str
    age: float
    idle: float
    command: str


class ServerFacts:
    """Asks Redis about itself."""

    def __init__(self, connection: redis.Redis) -> None:
        # redis-py types an answer as the union of what every protocol version may give.
        self._connection: Any = connection

    def fetch(self) -> Server:
        """Return what INFO says."""
        with broker_errors():
            info: dict[str, Any] = self._connection.info()
        return server_from(info)

    def clock(self, tries: int = 5) -> ServerClock:
        """Compare the clocks, and return the comparison that was answered fastest."""
        return min((self._compare() for _ in range(tries)), key=lambda c: c.latency)

    def _compare(self) -> ServerClock:
        began = clock.now()
        sent = clock.boottime()
        with broker_errors():
            seconds, micros = self._connection.time()
        latency = clock.boottime() - sent
        at = seconds + micros / 1e6
        return ServerClock(at=at, offset=at - (began + latency / 2), latency=latency)

    def settings(self) -> Mapping[str, str]:
        """Return those of `SETTINGS` that Redis tells; none where CONFIG isn't allowed."""
        found: dict[str, str] = {}
        from redis.exceptions import ResponseError

        if not self._is_owner():
            return {}
        with broker_errors():
            try:
                for name in SETTINGS:
                    found |= self._connection.config_get(name)
            except ResponseError:
                # No permission, or a hosted Redis without the command.
                return {}
        return found

    def clients(self) -> Sequence[Connection]:
        """Return who is connected; nobody where CLIENT LIST isn't allowed."""
        from redis.exceptions import ResponseError

        if not self._is_owner():
            return []
        with broker_errors():
            try:
                rows = self._connection.client_list()
            except ResponseError:
                return []
        return [
            Connection(
                address=str(row.get("addr", "")),
                name=str(row.get("name", "")),
                age=float(row.get("age", 0)),
                idle=float(row.get("idle", 0)),
                command=str(row.get("cmd", "")),
            )
            for row in rows
        ]

    def _is_owner(self) -> bool:
        """Tell whether who asks may see it all; Redis keeps a list of those whom it refuses."""
        from redis.exceptions import ResponseError

        with broker_errors():
            try:
                name = self._connection.execute_command("ACL", "WHOAMI")
            except ResponseError:
                return False
        return _text(name) in ("default", ADMIN)

    def pauses(self, *, since: float) -> Mapping[str, float]:
        """Return what held Redis up last, by its cause, in seconds; only since an instant."""
        from redis.exceptions import ResponseError

        with broker_errors():
            try:
                rows = self._connection.execute_command("LATENCY LATEST")
            except ResponseError:
                return {}
        return {_text(row[0]): float(row[2]) / 1000 for row in rows or [] if row[1] >= since}


def server_from(info: Mapping[str, Any]) -> Server:
    """Return the dataclass of an INFO."""
    replica_of = None
    if info.get("role") == "slave":
        replica_of = f"{info.get('master_host')}:{info.get('master_port')}"
    return Server(
        version=str(info.get("redis_version", "?")),
        run_id=str(info.get("run_id", "")),
        port=int(info.get("tcp_port", 0)),
        pid=int(info.get("process_id", 0)),
        uptime=float(info.get("uptime_in_seconds", 0)),
        memory=int(info.get("used_memory", 0)),
        memory_limit=int(info.get("maxmemory", 0)),
        memory_policy=str(info.get("maxmemory_policy", "")),
        clients=int(info.get("connected_clients", 0)),
        is_loading=bool(info.get("loading", 0)),
        has_aof=bool(info.get("aof_enabled", 0)),
        is_aof_ok=info.get("aof_last_write_status", "ok") == "ok"
        and info.get("aof_last_bgrewrite_status", "ok") == "ok",
        is_rdb_ok=info.get("rdb_last_bgsave_status", "ok") == "ok",
        aof_bytes=int(info.get("aof_current_size", 0)),
        aof_delayed=int(info.get("aof_delayed_fsync", 0)),
        saved_at=float(info.get("rdb_last_save_time", 0)),
        replica_of=replica_of,
        replicas=sum(_is_following(value) for name, value in info.items() if name in _REPLICAS),
    )


def _is_following(replica: object) -> bool:
    """Tell whether a replica is up to date, of which INFO says this."""
    told = replica if isinstance(replica, Mapping) else {}
    return told.get("state") == "online" and int(told.get("lag", _LAGS)) < _LAGS


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
