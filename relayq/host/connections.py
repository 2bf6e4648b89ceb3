"""Whether a program waits for a connection that nobody answers; asked of /proc, so Linux only.

Standard library only: the runner program of an agent imports this module.
"""

from __future__ import annotations

import os
from contextlib import suppress

#: A connection that was asked for and is neither there nor refused, as /proc/net/tcp writes it.
_SYN_SENT = "02"
_STATE, _INODE = 3, 9


def is_knocking(session: int) -> bool:
    """Tell whether a process of this session has asked for a connection, without an answer yet."""
    wanted = {f"socket:[{inode}]" for inode in _unanswered()}
    return bool(wanted) and any(wanted & _open(pid) for pid in _members(session))


def _unanswered() -> set[str]:
    """Return the inodes of all sockets whose connection is being asked for."""
    found = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as file:
            rows = (line.split() for line in file)
            found |= {row[_INODE] for row in rows if row[_STATE] == _SYN_SENT}
    return found


def _members(session: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.getsid(int(name)) == session:
                    found.append(int(name))
    return found


def _open(pid: int) -> set[str]:
    """Return what a process has open; nothing of one that is gone, or somebody else's."""
    found = set()
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found
