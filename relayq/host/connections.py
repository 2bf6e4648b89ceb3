"""What can be seen of a program's talk with its API, without hearing it: its TCP connections.

Asked of the kernel (sock_diag and /proc), so Linux only: elsewhere nothing is seen, and a program
that waits in silence is taken for one that thinks. Standard library only: the runner program of an
agent imports this module.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

#: States of a connection: there, asked for without an answer, half closed by the other side.
_ESTABLISHED, _SYN_SENT, _CLOSE_WAIT = 1, 2, 8
_ASKED = 1 << _ESTABLISHED | 1 << _SYN_SENT | 1 << _CLOSE_WAIT
_SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, _DONE, _ERROR = 20, 0x301, 3, 2
_INET_DIAG_INFO = 2
#: Before its first answer a connection by TLS receives certificates and tickets of a new session,
#: 3 to 5 KB of them. Any answer of an API's stream is larger, as it repeats what was asked.
_TLS_PORT, _HANDSHAKE = 443, 6 * 1024
#: A smaller piece than this is no request to a model, but what keeps a connection going.
_SMALLEST_REQUEST = 512
#: What an answer is known by: it is this long, or goes on so many seconds after its beginning.
_LONG_ANSWER, _GOES_ON = 16 * 1024, 2.0
#: Share of one core; claude and codex take 1 % while they wait.
_BUSY = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


class Connection(NamedTuple):
    """A connection: how much went each way, and how many seconds ago the last of it did."""

    is_open: bool
    port: int
    sent: int
    received: int
    sent_ago: float
    received_ago: float

    @property
    def is_unanswered(self) -> bool:
        """Whether nothing has come since the last that was sent, the handshake aside."""
        if not self.is_open or self.sent < _SMALLEST_REQUEST:
            return False
        return self.substance == 0 or self.received_ago > self.sent_ago

    @property
    def substance(self) -> int:
        """How much was received that can be an answer."""
        if self.port == _TLS_PORT and self.received <= _HANDSHAKE:
            return 0
        return self.received


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen at one look.

    `unanswered` is for how many seconds a request has had no answer, None if there is no such. It
    `is_knocking` when a connection was asked for and is neither there nor refused. Something
    `arrived` since the last look; an answer `flows` that isn't just an error's. The program
    `is_at_work` when a tool of it runs, or it uses the CPU.
    """

    unanswered: float | None = None
    is_knocking: bool = False
    arrived: bool = False
    flows: bool = False
    is_at_work: bool = False


class Watch:
    """Looks at the connections of a program and what it has started, again and again."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._talks: dict[str, _Talk] | None = None
        self._cpu: tuple[float, float] | None = None

    def begin(self) -> None:
        """Forget what was seen: what arrived until now is an answer to something before."""
        self._talks = None
        self._cpu = None

    def look(self, at: float) -> Sight:
        """Look at it; `at` is on any clock of seconds."""
        processes = _family(self._session)
        held = {name for pid in processes for name in _open(pid)}
        found = {name: one for name, one in connections().items() if name in held}
        talks, before = {}, self._talks
        arrived = flows = False
        for name, now in found.items():
            if before is None:
                last = _Talk(now)
            else:
                last = before.get(name) or _Talk(now._replace(received=0))
            talks[name] = last.after(now, at)
            arrived = arrived or now.substance > last.last.substance
            flows = flows or talks[name].flows
        self._talks = talks
        return Sight(
            unanswered=max(
                (one.sent_ago for one in found.values() if one.is_unanswered), default=None
            ),
            is_knocking=not all(one.is_open for one in found.values()),
            arrived=arrived,
            flows=flows,
            is_at_work=self._is_at_work(processes, at),
        )

    def _is_at_work(self, processes: Mapping[int, _Process], at: float) -> bool:
        cpu, before = sum(one.cpu for one in processes.values()), self._cpu
        self._cpu = (at, cpu)
        # Each agent gives its tools sessions of their own.
        if any(one.session != self._session for one in processes.values()):
            return True
        return before is not None and cpu - before[1] > _BUSY * (at - before[0])


@dataclass(frozen=True, slots=True)
class _Talk:
    """One connection since its last request: what was there, and when an answer began."""

    last: Connection
    base: int = 0
    began: float | None = None
    flows: bool = False

    def after(self, now: Connection, at: float) -> _Talk:
        """Return what is known once the connection looks like this."""
        if now.sent - self.last.sent >= _SMALLEST_REQUEST:
            return _Talk(now, self.last.received)
        grew = now.received > self.last.received
        began = at if grew and self.began is None else self.began
        base = self.base or self.last.received
        flows = grew and (
            now.received - base >= _LONG_ANSWER or (began is not None and at - began >= _GOES_ON)
        )
        return _Talk(now, base, began, flows)


class _Process(NamedTuple):
    session: int
    cpu: float


def connections() -> dict[str, Connection]:
    """Return all TCP connections of this network that are asked for or there, by their sockets."""
    found: dict[str, Connection] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, AttributeError, struct.error):
            found.update(_dump(family))
    return found


def _dump(family: int) -> Iterator[tuple[str, Connection]]:
    wanted = struct.pack(
        "=BBBBI48x", family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0, _ASKED
    )
    head = struct.pack("=IHHII", 16 + len(wanted), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    # NETLINK_SOCK_DIAG, which the module `socket` has no name for.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as kernel:
        kernel.settimeout(1)
        kernel.send(head + wanted)
        while True:
            piece, place = kernel.recv(256 * 1024), 0
            while place < len(piece):
                length, sort = struct.unpack_from("=IH", piece, place)
                if sort in (_DONE, _ERROR):
                    return
                yield _read(piece[place + 16 : place + length])
                place += (length + 3) & ~3


def _read(message: bytes) -> tuple[str, Connection]:
    """Return the socket and the connection of an `inet_diag_msg` with its attributes."""
    state, port = message[1], int(struct.unpack_from(">H", message, 6)[0])
    name = f"socket:[{struct.unpack_from('=I', message, 68)[0]}]"
    place, info = 72, b""
    while place + 4 <= len(message):
        length, sort = struct.unpack_from("=HH", message, place)
        if sort == _INET_DIAG_INFO:
            info = message[place + 4 : place + length]
        place += max(4, (length + 3) & ~3)
    # `struct tcp_info`: ages in milliseconds, then the bytes that were acknowledged and received.
    sent_ago, received_ago = (struct.unpack_from("=I", info, at)[0] / 1000 for at in (44, 52))
    sent, received = struct.unpack_from("=QQ", info, 120)
    is_open = state != _SYN_SENT
    return name, Connection(is_open, port, sent, received, sent_ago, received_ago)


def _family(leader: int) -> dict[int, _Process]:
    """Return the processes of a session and all that descend from its leader."""
    parents: dict[int, int] = {}
    found: dict[int, _Process] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with suppress(OSError, ValueError, IndexError):
            if name.isdigit():
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    # What comes after the command, which may hold anything.
                    words = file.read().rpartition(")")[2].split()
                parents[int(name)] = int(words[1])
                cpu = (int(words[11]) + int(words[12])) / _TICKS
                found[int(name)] = _Process(int(words[3]), cpu)
    return {
        pid: one
        for pid, one in found.items()
        if one.session == leader or leader in _ancestors(pid, parents)
    }


def _ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    while (pid := parents.get(pid, 0)) > 1:
        yield pid


def _open(pid: int) -> Iterator[str]:
    """Yield what a process has open; nothing of one that is gone, or somebody else's."""
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{fd}")
