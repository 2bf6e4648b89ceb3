"""Removes worktrees of jobs that ended long ago, or that take too much room; never a branch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relayq import clock
from relayq.errors import RelayqError
from relayq.git import attempt
from relayq.host import attempts, spool
from relayq.host.worktrees import WORKTREES, alone
from relayq.sections import Worktrees
from relayq.store import Store

log = logging.getLogger(__name__)

_NOTE = ".json"


@dataclass(frozen=True, slots=True)
class _Kept:
    job: str
    path: str
    repository: str
    begun_at: float
    ended_at: float


def clear(home: Path, store: Store, limits: Worktrees) -> int:
    """Remove what the limits don't allow any more; returns how many worktrees that were.

    That of a job which isn't ended stays, or of which that can't be told, however old and large;
    that of a forgotten job counts from its last attempt on.
    """
    directory = str(home / WORKTREES)
    notes = _notes(directory)
    if not notes:
        return 0
    records = {record.id: record for record in store.jobs.fetch_many(notes)}
    unreadable = store.jobs.known(set(notes) - set(records))
    ended = []
    for job, changed_at in notes.items():
        record = records.get(job)
        if job in unreadable or (record is not None and not record.state.is_final):
            continue
        at = changed_at if record is None else max(changed_at, record.finished_at or 0.0)
        path = os.path.join(directory, job)
        known = spool.load(f"{path}{_NOTE}") or {}
        ended.append(_Kept(job, path, str(known.get("repository", "")), changed_at, at))
    removed = _beyond(sorted(ended, key=lambda one: -one.ended_at), limits)
    return sum(_remove(one) for one in removed)


def _notes(directory: str) -> dict[str, float]:
    """Return the jobs that have a worktree here, each with when its last attempt began."""
    found: dict[str, float] = {}
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(_NOTE) and entry.is_file(follow_symlinks=False):
                found[entry.name.removesuffix(_NOTE)] = entry.stat().st_mtime
    return found


def _beyond(ended: Iterable[_Kept], limits: Worktrees) -> Sequence[_Kept]:
    """Return those of these, the newest first, that are too old or for which there is no room."""
    left, removed = limits.room, []
    for one in ended:
        left -= _size(one.path)
        if left < 0 or clock.now() - one.ended_at > limits.keep:
            removed.append(one)
    return removed


def _size(path: str) -> int:
    """Return what a directory takes of the disk."""
    total, left = 0, [path]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
    return total


def _remove(one: _Kept) -> bool:
    """Remove a worktree, unless somebody had its job tried again meanwhile."""
    note = f"{one.path}{_NOTE}"
    with alone(os.path.dirname(one.path)):
        try:
            if os.stat(note).st_mtime != one.begun_at:
                return False
        except FileNotFoundError:
            return False
        attempts.remove(Path(one.path))
        if os.path.lexists(one.path):
            log.warning("can't remove the worktree %s", one.path)
            return False
        if os.path.isdir(one.repository):
            with suppress(RelayqError):
                # Else the repository thinks that its branch is still checked out there.
                attempt(one.repository, "worktree", "prune")
        os.unlink(note)
    return True
