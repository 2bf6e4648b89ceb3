"""Applies a job's patch to a repository here: all of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from relayq.errors import Conflict, RelayqError
from relayq.git import attempt, git, lines

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Applied:
    """Where a patch was applied, or would be, and the files that it changes."""

    repository: str
    files: Sequence[str]


def apply(patch: bytes, directory: str, *, only_check: bool = False) -> Applied:
    """Apply a patch to the files and the index of the repository that a directory is in.

    Files that were changed since are merged. Raises Conflict when that can't be done or would
    touch what isn't committed; then, as with `only_check`, nothing is changed.
    """
    top = _top(directory)
    with _as_file(patch) as path:
        listed = git(top, "apply", "--numstat", "-z", path)
        files = [entry.split("\t", 2)[2] for entry in lines(listed)]
        _check_merge(top, path)
        _check_own(top, path)
        if not only_check:
            git(top, "apply", "--3way", "--whitespace=nowarn", path)
    return Applied(top, files)


def _top(directory: str) -> str:
    if not os.path.isdir(directory):
        raise RelayqError(f"no such directory: {directory}", hint="relayq apply JOB --to DIR")
    code, printed, said = attempt(directory, "rev-parse", "--show-toplevel")
    if code != 0:
        why = said.splitlines()[0].removeprefix("fatal: ") if said else "git doesn't know it"
        raise RelayqError(f"{directory}: {why}", hint="relayq apply JOB --to DIR")
    return printed.rstrip("\n")


@contextmanager
def _as_file(patch: bytes) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="relayq-") as directory:
        path = os.path.join(directory, "patch")
        with open(path, "wb") as file:
            file.write(patch)
        yield path


def _check_merge(top: str, path: str) -> None:
    """Raise unless it merges with what is in the index; tried on a copy of that."""
    index = os.path.join(top, git(top, "rev-parse", "--git-path", "index").rstrip("\n"))
    draft = f"{path}.index"
    if os.path.exists(index):
        shutil.copyfile(index, draft)
    env = {"GIT_INDEX_FILE": draft}
    if lines(git(top, "ls-files", "--unmerged", "-z")):
        raise Conflict(f"a merge is under way in {top}", hint=f"git -C {top} status")
    tried = ("apply", "--3way", "--cached", "--whitespace=nowarn", path)
    code, _, said = attempt(top, *tried, env=env)
    if code == 0:
        return
    unmerged = lines(git(top, "ls-files", "--unmerged", "-z", env=env))
    clashing = sorted({entry.partition("\t")[2] for entry in unmerged})
    if clashing:
        raise Conflict(
            f"nothing was applied: {top} was changed in the same places: {_named(clashing)}",
            hint="relayq diff JOB, or merge its branch on its host",
        )
    errors = [line.removeprefix("error: ") for line in said.splitlines() if "error: " in line]
    why = "; ".join(dict.fromkeys(errors)) or said
    raise Conflict(f"nothing was applied: {why[:600]}", hint="relayq diff JOB")


def _check_own(top: str, path: str) -> None:
    """Raise if a file that it changes has changes here that aren't committed, or is in its way."""
    # Of a renamed file both names.
    touched = _touched(path)
    dirty = set(lines(git(top, "diff", "--name-only", "-z", "--no-renames")))
    if mine := sorted(touched & dirty):
        raise Conflict(
            f"nothing was applied: there are changes of your own in {_named(mine)}",
            hint=f"git -C {top} stash, or commit them",
        )
    known = set(lines(git(top, "ls-files", "-z")))
    in_the_way = sorted(one for one in touched - known if os.path.lexists(os.path.join(top, one)))
    if in_the_way:
        raise Conflict(
            f"nothing was applied: {_named(in_the_way)} is there, and git doesn't know it",
            hint=f"git -C {top} status",
        )


def _touched(path: str) -> set[str]:
    """Return every name in a patch, before and after."""
    directory = os.path.dirname(path)
    forward = git(directory, "apply", "--numstat", "-z", path)
    backward = git(directory, "apply", "--numstat", "-z", "--reverse", path)
    return {entry.split("\t", 2)[2] for entry in lines(forward) + lines(backward)}


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
