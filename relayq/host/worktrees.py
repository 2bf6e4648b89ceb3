"""A job's own worktree of a repository: made before its command, committed after it.

It lies outside the repository, in `worktrees/<job>` of relayq's home, on the branch `relayq/<job>`;
`worktrees/<job>.json` beside it says whose it is. A further attempt of an agent's job goes on in
it, that of any other job begins anew. What is made here is the branch and the patch; the
repository's own directory is never touched.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relayq.errors import RelayqError
from relayq.git import GitFailed, attempt, git, lines
from relayq.host import attempts, spool
from relayq.host.sessions import write_whole
from relayq.host.stages import FILES
from relayq.host.staging import Fault, Order
from relayq.model.changes import HEAD, NAMED, Changes, branch_of, read_numstat
from relayq.model.jobs import Spec

WORKTREES = "worktrees"
_IDENTITY = ("-c", "user.name=relayq", "-c", "user.email=relayq@localhost")
_TITLE = 72
#: Twice: also where one that is gone was locked.
_ADD = ("worktree", "add", "--quiet", "--force", "--force")


@dataclass(frozen=True, slots=True)
class Tree:
    """A worktree that is wanted: of which repository, at which commit, and where.

    `below` is the job's directory in it, "" for its top; `title` becomes the commit's.
    """

    repository: str
    below: str
    ref: str
    path: str
    branch: str
    title: str

    @property
    def cwd(self) -> str:
        """Where the command works."""
        return os.path.join(self.path, self.below) if self.below else self.path

    def as_dict(self) -> dict[str, Any]:
        """Return it as an order holds it."""
        return asdict(self)


def wanted(spec: Spec, home: Path, cwd: str) -> Tree | None:
    """Return the worktree that a job asks for, None for one without; raises what is in the way.

    Only looks at directories: git itself is for the step.
    """
    if spec.git is None:
        return None
    repository, below = locate(cwd)
    title = " ".join((spec.name or f"relayq job {spec.id}").split())[:_TITLE]
    path = str(home / WORKTREES / spec.id)
    return Tree(repository, below, spec.git, path, branch_of(spec.id), title)


def locate(cwd: str) -> tuple[str, str]:
    """Return the top directory of the repository that a directory is in, and the way down."""
    real = os.path.realpath(cwd)
    if not os.path.isdir(real):
        raise RelayqError(f"no such directory on this host: {cwd}")
    place = real
    while True:
        mark = os.path.join(place, ".git")
        if os.path.isfile(mark):
            _check_link(place, mark)
        if os.path.exists(mark):
            below = os.path.relpath(real, place)
            return place, "" if below == "." else below
        if all(os.path.exists(os.path.join(place, one)) for one in ("HEAD", "objects", "refs")):
            raise RelayqError(f"{place} is a bare repository: name a directory with its files")
        place, before = os.path.dirname(place), place
        if place == before:
            raise RelayqError(f"{cwd} is in no git repository on this host")


def _check_link(place: str, mark: str) -> None:
    """Raise for a submodule; a worktree that somebody else made is as good as a repository."""
    with open(mark, encoding="utf-8", errors="surrogateescape") as file:
        target = file.read().removeprefix("gitdir:").strip()
    _, is_part, name = f"/{target}".partition("/.git/modules/")
    if is_part and "/worktrees/" not in name:
        raise RelayqError(
            f"{place} is a submodule, which can have no worktree of its own: "
            "name the repository that it is in, or a clone of it"
        )


def make(order: Order) -> None:
    """Have the worktree of an attempt ready; raises Fault."""
    tree = _tree_of(order)
    try:
        with alone(os.path.dirname(tree.path)):
            _make(tree, goes_on=order.is_resumed)
    except GitFailed as error:
        raise Fault(FILES, _explained(error, tree)) from error


def _tree_of(order: Order) -> Tree:
    assert order.git is not None
    return Tree(**order.git)


@contextmanager
def alone(directory: str) -> Iterator[None]:
    """Be the only one that makes or removes worktrees there: git itself has races."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _make(tree: Tree, *, goes_on: bool) -> None:
    if goes_on and _resumed(tree):
        return
    base = _commit(tree)
    if tree.below and attempt(tree.repository, "cat-file", "-e", f"{base}:{tree.below}")[0] != 0:
        raise Fault(FILES, f"{tree.ref} of {tree.repository} has no directory {tree.below}")
    notes = _notes(tree, base)
    # First of all: what is half made is found and removed by this.
    write_whole(_note(tree), {**tree.as_dict(), "base": base, "notes": notes})
    attempts.remove(Path(tree.path))
    # Not `-B`: a worktree that was killed while it was made seems to have the branch still.
    git(tree.repository, "update-ref", f"refs/heads/{tree.branch}", base)
    git(tree.repository, *_ADD, tree.path, tree.branch)


def _resumed(tree: Tree) -> bool:
    """Go on in the worktree that an earlier attempt left, or on its branch; False without one."""
    known = _known(tree)
    if known is None or known.get("repository") != tree.repository:
        return False
    if os.path.isdir(tree.path) and attempt(tree.path, "rev-parse", "--verify", HEAD)[0] == 0:
        os.utime(_note(tree))
        return True
    if attempt(tree.repository, "rev-parse", "--verify", f"refs/heads/{tree.branch}")[0] != 0:
        return False
    attempts.remove(Path(tree.path))
    return attempt(tree.repository, *_ADD, tree.path, tree.branch)[0] == 0


def _commit(tree: Tree) -> str:
    wanted = f"{tree.ref}^{{commit}}"
    code, printed, said = attempt(tree.repository, "rev-parse", "--verify", "--quiet", wanted)
    if code == 0:
        return printed.strip()
    if said:
        raise GitFailed(said.removeprefix("fatal: "), said=said)
    if tree.ref == HEAD:
        raise Fault(FILES, f"{tree.repository} has no commit yet")
    raise Fault(FILES, f"{tree.repository} has no branch, tag or commit {tree.ref!r}")


def _notes(tree: Tree, base: str) -> list[str]:
    """Return what of the repository isn't in the worktree."""
    notes = []
    changed = lines(git(tree.repository, "status", "--porcelain", "-z", "--no-renames"))
    if changed:
        what = "a change" if len(changed) == 1 else f"{len(changed)} changes"
        notes.append(f"{tree.repository} had {what} that nobody had committed: it worked without")
    listed = git(tree.repository, "ls-tree", "-r", "-z", base)
    if any(entry.startswith("160000 ") for entry in lines(listed)):
        notes.append("its submodules were not there: their directories were empty")
    return notes


def _explained(error: GitFailed, tree: Tree) -> str:
    if "dubious ownership" in error.said:
        fix = f"git config --global --add safe.directory {tree.repository}"
        return f"git refuses {tree.repository}: it belongs to somebody else ({fix}, on that host)"
    if "cannot lock ref" in error.said and "'refs/heads/relayq' exists" in error.said:
        return f"{tree.repository} has a branch relayq, where relayq/... is to be: rename it"
    return str(error)


def leave(order: Order) -> Changes:
    """Commit what the job changed, write the patch beside the order, and say what that was."""
    tree = _tree_of(order)
    known = _known(tree)
    if known is None or not os.path.isdir(tree.path):
        raise RelayqError(f"its worktree {tree.path} is gone; what was committed is on its branch")
    base, notes = str(known["base"]), list(map(str, known["notes"]))
    with suppress(FileNotFoundError):
        # Of a git that was killed: nothing of the command runs any more.
        os.unlink(os.path.join(tree.path, _path(tree, "index.lock")))
    _stand_on_branch(tree, notes)
    kept = [f":(top,exclude,literal){os.path.join(tree.below, one.dest)}" for one in order.files_in]
    git(tree.path, "add", "--all", "--", ":/", *kept)
    if attempt(tree.path, "diff", "--cached", "--quiet")[0] != 0:
        text = f"{tree.title}\n\nRelayq-Job: {order.job}"
        git(tree.path, *_IDENTITY, "commit", "--quiet", "--no-verify", "-m", text)
    head = git(tree.path, "rev-parse", HEAD).strip()
    stat = read_numstat(
        git(tree.path, *("diff-tree", "-r", "-z", "--numstat", "--no-renames", base, head))
    )
    patch = f"{order.job}.patch" if stat else ""
    if patch:
        with open(os.path.join(order.directory, patch), "wb") as file:
            git(tree.path, *_DIFF, base, head, to=file)
    return Changes(
        branch=tree.branch,
        base=base,
        head=head,
        ref=tree.ref,
        repository=tree.repository,
        worktree=tree.path,
        commits=int(git(tree.path, "rev-list", "--count", f"{base}..{head}")),
        files=len(stat),
        added=sum(one.added or 0 for one in stat),
        removed=sum(one.removed or 0 for one in stat),
        stat=tuple(stat[:NAMED]),
        patch=patch,
        notes=tuple(notes),
    )


#: Plumbing: no configuration of the host's changes the form of a patch.
_DIFF = (
    *("diff-tree", "-r", "-p", "-M", "--binary", "--full-index"),
    *("--no-ext-diff", "--no-textconv", "--no-color"),
)


def _stand_on_branch(tree: Tree, notes: list[str]) -> None:
    """Have the worktree on the job's branch, wherever the command went: nobody else's gets it."""
    ours = f"refs/heads/{tree.branch}"
    code, printed, _ = attempt(tree.path, "symbolic-ref", "--quiet", HEAD)
    if printed.strip() == ours:
        return
    head = git(tree.path, "rev-parse", HEAD).strip()
    git(tree.path, "update-ref", ours, head)
    git(tree.path, "symbolic-ref", HEAD, ours)
    left = printed.strip().removeprefix("refs/heads/") if code == 0 else f"commit {head[:10]}"
    notes.append(f"its command went to {left}: {tree.branch} is there now")


def _path(tree: Tree, name: str) -> str:
    """Return where git keeps something of this worktree alone."""
    return git(tree.path, "rev-parse", "--git-path", name).rstrip("\n")


def _note(tree: Tree) -> str:
    return f"{tree.path}.json"


def _known(tree: Tree) -> Mapping[str, Any] | None:
    found = spool.load(_note(tree))
    return found if found and "base" in found and "notes" in found else None
