"""What this host remembers of agents' sessions, so that a further attempt goes on with them.

A session lives in the files of its agent, on this host and mostly in one directory: what is kept
here is where, whose, and how far it was. In the state directory: `sessions/<job>.<agent>.json`
(what a job carries to its next attempt), `sessions/<session>.session.json`,
`sessions/<session>.lock` (held while a run uses it), `scratch/<job>`, and `runs/<job>.<attempt>`
with the raw events and the agent's files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from relayq import clock

#: claude deletes its own after as long.
_KEEP = 30 * 86_400.0
_KEEP_RUNS = 14 * 86_400.0
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Carried:
    """A session on this host, or what a job has of it.

    `has_progressed` once the agent said or did anything in it for this job. `reply` is a person's
    word that it may not have heard, `allowed` are the tools that people allowed. `usage_total` is
    the agent's own counter of the whole session.
    """

    agent: str
    account: str
    session_id: str
    cwd: str
    home: str
    version: str = ""
    job: str = ""
    has_progressed: bool = False
    reply: str = ""
    allowed: tuple[str, ...] = ()
    usage_total: dict[str, int] | None = None
    at: float = 0.0


class SessionInUse(Exception):
    """Another run on this host uses the session right now."""


class Sessions:
    """The state directory of one user's worker."""

    def __init__(self, state_dir: str) -> None:
        self._root = state_dir
        self._locks: list[int] = []
        for name in ("sessions", "scratch", "runs"):
            os.makedirs(os.path.join(state_dir, name), mode=0o700, exist_ok=True)

    def scratch(self, job: str) -> str:
        """Return the directory of a job that named none; its attempts share it."""
        return self._directory("scratch", job)

    def scratch_path(self, job: str) -> str:
        """Return where that is, or would be."""
        return os.path.join(self._root, "scratch", _plain(job))

    def run(self, job: str, attempt: int) -> str:
        """Return the directory for the files of one attempt."""
        return self._directory("runs", f"{job}.{attempt}")

    def carried(self, job: str, agent: str, account: str, home: str) -> Carried | None:
        """Return what an earlier attempt of the job left on this host."""
        found = self._load(f"{_plain(job)}.{_plain(agent)}")
        fits = found is not None and (found.agent, found.account, found.home) == (
            agent,
            account,
            home,
        )
        return found if fits else None

    def carry(self, job: str, carried: Carried) -> None:
        """Keep it for the job's next attempt, and for whoever names the session."""
        self._write(f"{_plain(job)}.{_plain(carried.agent)}", carried)
        self._write(f"{_plain(carried.session_id)}.session", carried)

    def forget(self, job: str, agent: str) -> None:
        """Forget what a job carries: its session is gone."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(f"{_plain(job)}.{_plain(agent)}"))

    def known(self, session_id: str) -> Carried | None:
        """Return what is known here of a session that somebody named."""
        return self._load(f"{_plain(session_id)}.session")

    def latest(self, agent: str, account: str, cwd: str | None) -> Carried | None:
        """Return the session that was used last by an account, in a directory or in any."""
        names = os.listdir(os.path.join(self._root, "sessions"))
        found = (self._load(one.removesuffix(".json")) for one in names if ".session.json" in one)
        mine = [
            one
            for one in found
            if one and (one.agent, one.account) == (agent, account) and cwd in (None, one.cwd)
        ]
        return max(mine, key=lambda one: one.at, default=None)

    def lock(self, session_id: str) -> int:
        """Take a session until `unlock` or this process' end, or raise `SessionInUse`."""
        path = os.path.join(self._root, "sessions", f"{_plain(session_id)}.lock")
        # The agent mustn't inherit it: a daemon of its own would hold it for ever.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise SessionInUse(session_id) from None
        os.utime(fd)
        self._locks.append(fd)
        return fd

    def unlock(self) -> None:
        """Let go of the sessions that were taken."""
        while self._locks:
            os.close(self._locks.pop())

    def prune(self) -> None:
        """Remove what nobody used for long."""
        for name, keep in (("sessions", _KEEP), ("scratch", _KEEP), ("runs", _KEEP_RUNS)):
            for entry in self._old(name, keep):
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)

    def _old(self, name: str, keep: float) -> Iterator[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(os.path.join(self._root, name)) as entries:
            for entry in entries:
                with suppress(OSError):
                    if clock.now() - entry.stat(follow_symlinks=False).st_mtime > keep:
                        yield entry

    def _directory(self, sort: str, name: str) -> str:
        path = os.path.join(self._root, sort, _plain(name))
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.utime(path)
        return path

    def _path(self, name: str) -> str:
        return os.path.join(self._root, "sessions", f"{name}.json")

    def _load(self, name: str) -> Carried | None:
        try:
            with open(self._path(name), encoding="utf-8") as file:
                raw = json.load(file)
            raw["allowed"] = tuple(raw.get("allowed", ()))
            return Carried(**{f.name: raw[f.name] for f in fields(Carried) if f.name in raw})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def _write(self, name: str, carried: Carried) -> None:
        write_whole(self._path(name), {**asdict(carried), "at": clock.now()})


def write_whole(path: str, value: Any) -> None:
    """Write JSON so that a reader sees all of it or what was there before, and nobody else does."""
    draft = f"{path}.{os.getpid()}.tmp"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)


def _plain(name: str) -> str:
    """Return the name, or what stands for one that can't be a file's."""
    if _PLAIN.fullmatch(name):
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
