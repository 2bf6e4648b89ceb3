"""Jobs that work in a worktree of their own (`git=`): what is asked, and what became of it."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from relayq.errors import Conflict, OutputUnavailable, RelayqError
from relayq.fetching import WithFiles
from relayq.model.changes import Changes, ref_of
from relayq.model.files import Kept

if TYPE_CHECKING:
    from relayq.model.jobs import JobRecord, Outcome


def asked_ref(git: str | bool | None, payload: Mapping[str, Any]) -> str | None:
    """Return the commit at which a job is to have its worktree, None for one without git."""
    ref = ref_of(git)
    if ref is None:
        return None
    if not payload.get("cwd"):
        raise RelayqError(
            "git is for a repository on the host: name its directory (cwd)",
            hint="relayq run --git --cwd ~/project 'make test'",
        )
    if payload.get("session") or payload.get("continue_"):
        raise RelayqError(
            "an agent's session goes on in its own directory: not with git", hint="without --git"
        )
    return ref


class WithGit(WithFiles):
    """What a `JobResult` knows of a repository."""

    outcome: Callable[[], Outcome | None]

    @property
    @abstractmethod
    def record(self) -> JobRecord:
        """The record, which JobResult reads."""

    @property
    def changes(self) -> Changes | None:
        """What it committed on its branch, by its last attempt that ended; None without git."""
        spec = self.record.spec
        if spec is not None and spec.git is None:
            return None
        outcome = self.outcome()
        if outcome is None or outcome.git is None:
            return None
        return Changes.from_dict(outcome.git)

    def patch(self) -> bytes:
        """Return all that it changed, as git writes it; raises if that can't be had."""
        return self.patch_of(self.committed())

    def committed(self) -> Changes:
        """Return its changes, or raise why there are none."""
        record, changes = self.record, self.changes
        if changes is not None:
            return changes
        if record.spec is not None and record.spec.git is None:
            raise RelayqError(
                f"{self.id} had no worktree of its own (--git)", hint=f"relayq show {self.id}"
            )
        if record.state.is_waitable:
            raise Conflict(
                f"{self.id} is {record.state.value}: what it changed is committed at its end",
                hint=f"relayq wait {self.id}",
            )
        where = f" on {record.host}" if record.host else ""
        raise OutputUnavailable(
            f"{self.id} ended before its changes were committed; as long as it isn't removed, "
            f"its worktree{where} has them: worktrees/{self.id} in relayq's home",
            hint=f"relayq show {self.id}",
        )

    def patch_of(self, changes: Changes) -> bytes:
        """Return the patch of its changes."""
        if not changes.patch:
            return b""
        outcome = self.outcome()
        files = [Kept.from_dict(one) for one in outcome.files] if outcome is not None else []
        kept = next((one for one in files if one.name == changes.patch), None)
        if kept is None:
            raise OutputUnavailable(
                f"the patch of {self.id} is gone; on {self.record.host} it is the branch "
                f"{changes.branch}",
                hint=f"relayq show {self.id}",
            )
        import tempfile

        with tempfile.TemporaryDirectory(prefix="relayq-") as directory:
            path = os.path.join(directory, "patch")
            self.bring(kept, path)
            with open(path, "rb") as file:
                return file.read()
