"""What the last step of an attempt reports of the files that its job was to bring back."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from relayq.errors import RelayqError
from relayq.host import spool
from relayq.host.stages import ORDER
from relayq.host.staging import KEPT
from relayq.kinds import Verdict
from relayq.model.changes import Changes
from relayq.model.files import Kept, inside
from relayq.model.jobs import JobState, Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Returned:
    """The files of an attempt; the patterns that matched none, and what was refused.

    `git` is what it made of a repository: its branch has that, whether or not its patch was sent.
    """

    files: Sequence[Kept] = ()
    missing: Sequence[str] = ()
    errors: Sequence[str] = ()
    git: Changes | None = None

    @property
    def fault(self) -> str:
        """What keeps a success from being one, "" if nothing does."""
        said = list(self.errors)
        said += [f"no file matches {pattern}" for pattern in self.missing]
        said += [
            f"{one.name} can't be sent: {one.error}; it lies on its host at {one.path}"
            for one in self.files
            if one.place == "host" and (self.git is None or one.name != self.git.patch)
        ]
        return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")

    def lies_in(self, directory: Path) -> bool:
        """Whether a file is to be had from this directory only."""
        return any(
            one.place == "host" and Path(one.path).is_relative_to(directory) for one in self.files
        )


def has_files(directory: Path) -> bool:
    """Whether files travel with an attempt that an earlier worker prepared."""
    return os.path.exists(os.path.join(directory, ORDER))


def read(directory: Path) -> Returned | None:
    """Return the report, None when there is none that can be read."""
    raw = spool.load(os.path.join(directory, KEPT))
    if raw is None:
        return None
    try:
        files = [Kept.from_dict(one) for one in raw["files"]]
        for one in files:
            inside(one.name)
        git = None if raw.get("git") is None else Changes.from_dict(raw["git"])
        return Returned(files, list(map(str, raw["missing"])), list(map(str, raw["errors"])), git)
    except (KeyError, TypeError, ValueError, AttributeError, RelayqError) as error:
        log.warning("can't read what %s brought back: %s", directory.name, error)
        return None


def judged(directory: Path, verdict: Verdict) -> Verdict:
    """Return the verdict on an attempt whose command succeeded, if its files are there as well."""
    if verdict.state is not JobState.SUCCEEDED:
        return verdict
    returned = read(directory)
    fault = returned.fault if returned else "the files that it was to bring back were not taken"
    if not fault:
        return verdict
    return replace(verdict, state=JobState.FAILED, reason=Reason.FILES, error=fault)
