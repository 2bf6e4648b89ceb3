"""The tree of processes below one process: found, frozen, thawed, ended.

On Linux a shim is a child subreaper, so its tree is whatever has it as an ancestor, daemons
included. Elsewhere a tree is what was seen in it while it was watched: a daemon that detached
between two looks gets away. Standard library only: the shim imports this module.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

IS_LINUX = sys.platform.startswith("linux")

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None).prctl if IS_LINUX else None

# A fork bomb makes new processes faster than they are found; it is killed all the same.
_STOP_ROUNDS = 20


class Process(NamedTuple):
    """One process as the system's table shows it; `started` tells it from a later namesake."""

    pid: int
    parent: int
    group: int
    state: str
    started: str


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show, at most 15 characters (Linux)."""
    if _prctl is not None:
        _prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own (Linux)."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Have this process killed when the thread that forked it ends (Linux)."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def process(pid: int) -> Process | None:
    """Return one process, None when there is none with this id."""
    return _from_proc(pid) if IS_LINUX else processes().get(pid)


def processes() -> dict[int, Process]:
    """Return every process of this machine by its id."""
    return _all_from_proc() if IS_LINUX else _all_from_ps()


def descendants(table: dict[int, Process], roots: Iterable[int]) -> list[Process]:
    """Return the processes below `roots`, without these."""
    children: dict[int, list[Process]] = {}
    for one in table.values():
        children.setdefault(one.parent, []).append(one)
    known = set(roots)
    ahead, found = list(known), []
    while ahead:
        for child in children.get(ahead.pop(), ()):
            if child.pid not in known:
                known.add(child.pid)
                ahead.append(child.pid)
                found.append(child)
    return found


def send(members: Iterable[Process], number: int) -> None:
    """Send a signal to each process that is still there."""
    for one in members:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(one.pid, number)


def stop_all(find: Callable[[], list[Process]]) -> list[Process]:
    """Stop what `find` returns until it returns nothing new, and return all of it.

    What is stopped can't fork, so a look that finds nothing new has seen everything.
    """
    stopped: dict[int, Process] = {}
    for _ in range(_STOP_ROUNDS):
        fresh = [one for one in find() if one.pid not in stopped]
        if not fresh:
            break
        send((one for one in fresh if one.state != "T"), signal.SIGSTOP)
        stopped.update((one.pid, one) for one in fresh)
    return list(stopped.values())


def kill_all(find: Callable[[], list[Process]]) -> None:
    """Kill what `find` returns, stopped first so that nothing escapes by forking."""
    send(stop_all(find), signal.SIGKILL)


class Tree:
    """The processes below this one; `group` is the leader's process group, once there is one."""

    def __init__(self) -> None:
        self.group: int | None = None
        self._root = os.getpid()
        self._seen: dict[int, str] = {}

    def members(self) -> list[Process]:
        """Return the processes below this one.

        Where orphans aren't adopted also the leader's group, and what was seen here before.
        """
        table = processes()
        if IS_LINUX:
            return descendants(table, {self._root})
        known = {
            one.pid
            for one in table.values()
            if one.group == self.group or self._seen.get(one.pid) == one.started
        }
        found = descendants(table, {self._root, *known}) + [table[pid] for pid in known]
        found = [one for one in found if one.state != "Z"]
        self._seen = {one.pid: one.started for one in found}
        return found

    def is_empty(self, *, childless: bool) -> bool:
        """Say whether nothing is left; `childless`: waitpid() said that there are no children.

        A subreaper without a child has no descendants either, so Linux needs no look.
        """
        return childless and (IS_LINUX or not self.members())

    def terminate(self) -> None:
        """Ask every process to end, once each: the leader's group and what left it.

        SIGCONT comes second, so that a frozen process runs no line of its own before SIGTERM.
        """
        members = self.members()
        if self.group is not None and any(one.group == self.group for one in members):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGTERM)
        send((one for one in members if one.group != self.group), signal.SIGTERM)
        send(members, signal.SIGCONT)

    def freeze(self) -> None:
        """Stop every process."""
        stop_all(self.members)

    def thaw(self) -> None:
        """Let every process go on."""
        send(self.members(), signal.SIGCONT)

    def kill(self) -> None:
        """Kill every process; the caller reaps, looks, and calls again if any is left."""
        kill_all(self.members)


def environment(pid: int) -> list[bytes]:
    """Return the environment that a process was started with, empty when it can't be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _all_from_proc() -> dict[int, Process]:
    found = (_from_proc(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {one.pid: one for one in found if one is not None}


def _from_proc(pid: int) -> Process | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(fd, 1024)
    except OSError:
        return None
    finally:
        os.close(fd)
    # The name in parentheses may hold anything, parentheses too.
    fields = raw[raw.rindex(b")") + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[2]), fields[0].decode(), fields[19].decode())


def _all_from_ps() -> dict[int, Process]:
    reader, writer = os.pipe()
    ps = os.posix_spawn(
        "/bin/ps",
        ["ps", "-axo", "pid=,ppid=,pgid=,state=,lstart="],
        {"LC_ALL": "C", "TZ": "UTC"},
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_CLOSE, reader)],
    )
    os.close(writer)
    with open(reader, "rb") as file:
        raw = file.read()
    with suppress(ChildProcessError):
        os.waitpid(ps, 0)
    found = {}
    for line in raw.decode(errors="replace").splitlines():
        pid, parent, group, state, started = line.split(None, 4)
        found[int(pid)] = Process(int(pid), int(parent), int(group), state[:1], started.strip())
    found.pop(ps, None)
    return found
