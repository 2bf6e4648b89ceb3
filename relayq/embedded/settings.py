"""The private broker's redis.conf: every setting that relayq's promises rest on, and why."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: How the append-only file reaches the disk, and what a crash of the machine may cost.
FSYNC = ("always", "everysec")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

_CONFIGURATION = """\
# Written by relayq; for its own broker at each start.
bind {addresses}
{ports}
protected-mode yes
daemonize no
supervised no
dir {folder}
pidfile {pidfile}
logfile {logfile}

# What was answered is on the disk. A tail that a crash cut was never answered.
appendonly yes
appendfsync {fsync}
no-appendfsync-on-rewrite no
aof-use-rdb-preamble yes
aof-load-truncated yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb
# Snapshots would be a second, older truth; one that fails must not stop any writes.
save ""
stop-writes-on-bgsave-error no
repl-diskless-sync yes
repl-diskless-sync-delay 0

# A job that was forgotten for want of memory would be lost: new work is refused instead.
maxmemory-policy noeviction
{maxmemory}
# A record with a value over 64 bytes would take three times the memory (1,626 B, not 492 B).
{listpack} 512

# Workers block for long; one that is gone is noticed, and one that doesn't read is dropped.
timeout 0
tcp-keepalive 60
maxclients 4096
client-output-buffer-limit normal 256mb 128mb 60

# A script holds up everybody: `relayq doctor` reads these.
lua-time-limit 5000
latency-monitor-threshold 100

# Who may do what: written as this file is.
aclfile {users}
acllog-max-len 128
"""
_SINCE_7 = """\
enable-protected-configs no
enable-debug-command no
enable-module-command no
"""


@dataclass(frozen=True, slots=True)
class Encryption:
    """The files with which a broker is spoken to over TLS only; clients need no certificate."""

    certificate: Path
    key: Path
    ca: Path

    def lines(self, port: int) -> str:
        """Return what is written instead of the plain port."""
        return f"""\
port 0
tls-port {port}
tls-cert-file {quoted(self.certificate)}
tls-key-file {quoted(self.key)}
tls-ca-cert-file {quoted(self.ca)}
tls-auth-clients no
tls-replication yes
tls-protocols "TLSv1.2 TLSv1.3\""""


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs from one private broker to another; `further` are lines of its own.

    `memory` is what Redis may use, in bytes; 0 for half of what this machine has.
    """

    folder: Path
    addresses: tuple[str, ...]
    port: int
    users: Path
    fsync: str
    version: tuple[int, ...]
    encryption: Encryption | None = None
    memory: int = 0
    further: str = ""

    def text(self) -> bytes:
        """Return the file; paths may be no text in any encoding."""
        is_7 = self.version >= (7,)
        lines = _CONFIGURATION.format(
            addresses=" ".join(self.addresses),
            ports=self.encryption.lines(self.port) if self.encryption else f"port {self.port}",
            users=quoted(self.users),
            folder=quoted(self.folder),
            pidfile=quoted(self.folder / "redis.pid"),
            logfile=quoted(self.folder / "redis.log"),
            fsync=self.fsync,
            maxmemory=f"maxmemory {memory}" if (memory := self.memory or memory_limit()) else "",
            listpack="hash-max-listpack-value" if is_7 else "hash-max-ziplist-value",
        )
        return os.fsencode(lines + (_SINCE_7 if is_7 else "") + self.further)


def memory_limit() -> int:
    """Return half of the memory that this machine or container has, 0 if it doesn't say.

    Redis then refuses new work, where the kernel would kill it.
    """
    limits = []
    with suppress(ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):
        limits.append(int(_CGROUP_LIMIT.read_text()))
    return min(limits, default=0) // 2


def quoted(path: Path) -> str:
    """Return a path as redis.conf has it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
