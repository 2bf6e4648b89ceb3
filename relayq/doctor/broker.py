"""What may be wrong with Redis: judged from what it says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from relayq.doctor.findings import Finding, ok, problem, warning
from relayq.store.server import Connection, Server, ServerClock

_OLDEST = (6, 2)
_SLOW = 0.25
_SKEW = 2.0
_NEARLY_FULL = 0.85
_JUST_STARTED = 120.0
_LONG_PAUSE = 1.0
_AGAIN = "relayq broker stop, then relayq broker start (it writes its own settings)"


def examine_server(
    where: str,
    server: Server,
    settings: Mapping[str, str],
    *,
    is_private: bool,
    has_password: bool,
    cli: str = "redis-cli",
    clients: Sequence[Connection] = (),
) -> Iterator[Finding]:
    """Judge the version, the persistence, the memory and the connections.

    `cli` is how one types a command to this Redis.
    """
    if is_private:
        cli = _AGAIN
    elif has_password:
        cli = f"{cli} --askpass"
    yield from _version(where, server)
    yield from _role(where, server)
    yield from _persistence(where, server, settings, cli)
    yield from _memory(where, server, cli)
    yield from _connections(where, server, settings, clients, cli)
    everywhere = {"*", "0.0.0.0", "::", "-::*"} & set(settings.get("bind", "").split())
    if everywhere and settings.get("protected-mode") == "no" and not has_password:
        yield problem(
            where,
            "Redis listens on every network, without a password",
            "set requirepass in redis.conf, and bind it to your private network",
        )


def _set(cli: str, name: str, value: str) -> str:
    """Say how a setting is changed; a broker of relayq's has the right one after a start."""
    if cli.startswith("relayq"):
        return cli
    return f"{cli} config set {name} {value}, then {cli} config rewrite"


def _version(where: str, server: Server) -> Iterator[Finding]:
    numbers = tuple(int(part) for part in server.version.split(".")[:2] if part.isdecimal())
    if len(numbers) == 2 and numbers < _OLDEST:
        yield problem(where, f"redis {server.version} is older than 6.2", "install a newer Redis")


def _role(where: str, server: Server) -> Iterator[Finding]:
    if server.replica_of is not None:
        yield problem(
            where,
            f"this Redis is a replica of {server.replica_of}, and takes no jobs",
            "name the master, or its sentinels, in config.yml: relayq config edit",
        )


def _persistence(
    where: str, server: Server, settings: Mapping[str, str], cli: str
) -> Iterator[Finding]:
    if not server.has_aof:
        yield problem(
            where,
            "the append-only file is off: a crash of Redis loses jobs that were answered",
            _set(cli, "appendonly", "yes"),
        )
        return
    if not server.is_aof_ok:
        yield problem(
            where,
            "Redis could not write its append-only file, and takes no new jobs",
            "free disk on its machine; relayq broker logs",
        )
    fsync = settings.get("appendfsync")
    if fsync == "no":
        yield problem(
            where,
            "appendfsync is no: a power cut may lose half a minute of answered jobs",
            _set(cli, "appendfsync", "everysec"),
        )
    elif server.is_aof_ok:
        costs = ": a power cut may cost the last second" if fsync == "everysec" else ""
        yield ok(where, f"append-only file on, fsync {fsync or 'unknown'}{costs}")
    if settings.get("aof-load-truncated") == "no":
        yield warning(
            where,
            "aof-load-truncated is no: after a power cut Redis won't start by itself",
            _set(cli, "aof-load-truncated", "yes"),
        )
    if not server.is_rdb_ok:
        yield warning(where, "the last snapshot failed", "relayq broker logs")


def _memory(where: str, server: Server, cli: str) -> Iterator[Finding]:
    if server.memory_policy not in ("noeviction", ""):
        yield problem(
            where,
            f"maxmemory-policy is {server.memory_policy}: Redis forgets jobs when memory is short",
            _set(cli, "maxmemory-policy", "noeviction"),
        )
    if not server.memory_limit:
        yield warning(
            where,
            "maxmemory isn't set: when memory is short the kernel kills Redis",
            _set(cli, "maxmemory", "1gb"),
        )
        return
    used = server.memory / server.memory_limit
    text = f"memory {_megabytes(server.memory)} of {_megabytes(server.memory_limit)}"
    if used >= 1:
        yield problem(where, f"{text}: it takes no new jobs", "relayq prune --older-than 1d")
    elif used >= _NEARLY_FULL:
        yield warning(where, text, "relayq prune --older-than 7d")
    else:
        yield ok(where, text)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def _connections(
    where: str,
    server: Server,
    settings: Mapping[str, str],
    clients: Sequence[Connection],
    cli: str,
) -> Iterator[Finding]:
    most = int(settings.get("maxclients", 0))
    if most and server.clients > _NEARLY_FULL * most:
        machines = Counter(client.address.rpartition(":")[0] for client in clients)
        whose = "".join(f", {n} of them from {name}" for name, n in machines.most_common(1))
        yield warning(
            where,
            f"{server.clients} of {most} connections are taken{whose}",
            "redis-cli client list shows what they are",
        )
    idle = int(settings.get("timeout", 0))
    if idle:
        yield warning(
            where,
            f"Redis closes connections that are idle for {idle} s: workers reconnect all the time",
            _set(cli, "timeout", "0"),
        )


def examine_latency(
    where: str, version: str, said: ServerClock, pauses: Mapping[str, float]
) -> Iterator[Finding]:
    """Judge how fast Redis answers, and what held it up."""
    text = f"redis {version} reachable, answers in {said.latency * 1000:.1f} ms"
    if said.latency > _SLOW:
        yield warning(where, text, "is it on a slow link, or its machine short of CPU or memory?")
    else:
        yield ok(where, text)
    for cause, seconds in pauses.items():
        if seconds >= _LONG_PAUSE:
            slow_disk = cause.startswith(("aof", "fork"))
            yield warning(
                where,
                f"Redis was held up for {seconds:.1f} s by {cause}",
                "a faster disk, or relayq broker start --fsync everysec" if slow_disk else None,
            )


def examine_restarts(
    where: str, server: Server, run_id: str | None, *, ended_by: Mapping[str, int]
) -> Iterator[Finding]:
    """Judge whether somebody else starts and stops this Redis.

    `run_id` is the one that the workers saw last, `ended_by` counts what the log says of ends in
    the last hour: `SIGTERM`, `disk full`, `crash`.
    """
    terms = ended_by.get("SIGTERM", 0)
    if terms >= 2:
        yield problem(
            where,
            f"Redis was stopped by SIGTERM {terms} times in the last hour: likely a watchdog, or "
            "a second manager of it",
            "keep one manager: systemctl list-units '*redis*'; crontab -l; ls /etc/cron.d",
        )
    if ended_by.get("disk full", 0):
        yield problem(
            where,
            "Redis ended because its disk was full, in the last hour",
            "free disk on its machine, or relayq broker start --ballast 256MB",
        )
    if ended_by.get("crash", 0):
        yield problem(where, "Redis crashed in the last hour", "relayq broker logs -n 200")
    if server.uptime < _JUST_STARTED and run_id not in (None, server.run_id) and not terms:
        yield warning(
            where,
            f"Redis was restarted {server.uptime:.0f} s ago: nothing expires for a lease-length",
        )


def examine_clock(where: str, here: str, said: ServerClock) -> Iterator[Finding]:
    """Judge Redis' clock beside this machine's; leases live on Redis' alone."""
    # Less than half of a round trip can't be told from the way that the answer took.
    off = abs(said.offset)
    if off > _SKEW + said.latency / 2:
        yield warning(
            here,
            f"this clock is {off:.1f} s {'behind' if said.offset > 0 else 'ahead of'} the broker's",
            "timedatectl set-ntp true (start times and shown ages are off by as much)",
        )
    else:
        yield ok(here, f"clock within {max(off, said.latency / 2) * 1000:.0f} ms of the broker's")
