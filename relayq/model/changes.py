"""What a job with `--git` made of a repository: its branch, and how much was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from relayq.errors import RelayqError

#: What stands for the commit that a repository's own directory is at.
HEAD = "HEAD"
#: So many files are named one by one; the sums are of all.
NAMED = 200
_SHORT = 10


def branch_of(job: str) -> str:
    """Return the branch on which a job works."""
    return f"relayq/{job}"


def ref_of(asked: str | bool | None) -> str | None:
    """Return the commit that was asked for as text, None for a job without git."""
    if asked is None or asked is False:
        return None
    ref = HEAD if asked is True else asked
    if not isinstance(ref, str) or not ref.strip() or ref.startswith("-") or "\0" in ref:
        raise RelayqError(
            f"{ref!r} names no commit", hint="git=True, or a branch, tag or commit: git='main'"
        )
    return ref


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file, and the lines that came and went; None for one that isn't text."""

    path: str
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a job committed on its `branch`, between the commits `base` and `head`.

    `ref` is what was asked for, `repository` where that is on the host and `worktree` where the job
    worked. `files`, `added` and `removed` count all, `stat` names the first of them. `patch` is the
    name of the result file that has all of it, "" when nothing was changed. `notes` say what
    somebody may not expect.
    """

    branch: str
    base: str
    head: str
    ref: str
    repository: str
    worktree: str
    commits: int = 0
    files: int = 0
    added: int = 0
    removed: int = 0
    stat: tuple[FileChange, ...] = ()
    patch: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "stat": [asdict(one) for one in self.stat]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote; anything else is a ValueError."""
        try:
            kept = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
            stat = tuple(FileChange(**one) for one in kept.pop("stat", ()))
            return cls(**{**kept, "stat": stat, "notes": tuple(map(str, kept.pop("notes", ())))})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"its changes can't be read: {error}") from error

    @property
    def extent(self) -> str:
        """How much was changed, such as `2 files changed, +212 -40`."""
        if not self.patch:
            return "nothing changed"
        sort = "file" if self.files == 1 else "files"
        return f"{self.files} {sort} changed, +{self.added} -{self.removed}"

    @property
    def summary(self) -> str:
        """The branch, where it begins, and how much was changed."""
        sort = "commit" if self.commits == 1 else "commits"
        made = f"{self.commits} {sort} on" if self.commits else "at"
        return f"{self.branch}: {made} {self.base[:_SHORT]}, {self.extent}"


def read_numstat(raw: str) -> list[FileChange]:
    """Return the files of what `git diff-tree --numstat -z` without renames printed."""
    found = []
    for entry in filter(None, raw.split("\0")):
        added, removed, path = entry.split("\t", 2)
        counts = [None if count == "-" else int(count) for count in (added, removed)]
        found.append(FileChange(path, *counts))
    return found
