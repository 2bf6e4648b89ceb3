"""A worker of root's whose jobs run as somebody else: what it is itself, and what it still may.

`become` gives up all rights of the process and of everything that it starts, for good but for one
thing: root's files can be opened where `as_owner` says so, in that thread alone. The kernel knows
that by the ids of a process: real and effective ones are the user's, so that a child is the user's
from its first instruction; the saved one stays root's, so that no job may read this process's
memory or trace it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_setfsuid = ctypes.CDLL(None).setfsuid if sys.platform.startswith("linux") else None
_user: int | None = None
#: Group, groups and environment of who became somebody else.
_before: tuple[int, list[int], Mapping[str, str]] = (0, [], {})


def become(uid: int, gid: int, name: str) -> None:
    """Be that user from now on, in all threads, and keep no more than `as_owner` needs."""
    global _user, _before
    _before = os.getgid(), os.getgroups(), dict(os.environ)
    os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, 0)
    _user = uid


def regain() -> Mapping[str, str]:
    """Be again who started this process, just before it becomes another program.

    Returns the environment of then: that of now names a home in which others write.
    """
    global _user
    if _user is None:
        return os.environ
    gid, groups, environ = _before
    os.setresuid(0, 0, 0)
    os.setresgid(gid, gid, gid)
    os.setgroups(groups)
    _user = None
    return environ


def is_lowered() -> bool:
    """Whether this process has become somebody else."""
    return _user is not None


@contextmanager
def as_owner() -> Iterator[None]:
    """Open files as the owner of this home, who may be root, in this thread; start nothing here."""
    if _user is None or _setfsuid is None:
        yield
        return
    # The C library's call is the thread's alone, other than setuid(2): no lock is needed.
    # Where this is used within itself, the inner end must not be the outer one.
    before = _setfsuid(0)
    try:
        yield
    finally:
        _setfsuid(before)


def job_user() -> str:
    """Return the name of the user whom this process, and so its jobs, runs as."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
