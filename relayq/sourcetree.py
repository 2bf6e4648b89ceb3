"""The source files of a directory: what git or the ignore rules leave, hashed and counted.

Where the directory belongs to a repository git says which files are there, with all of its rules;
elsewhere it is walked by the `.gitignore` files in it. Which files are source code is decided in
`relayq.model.sources`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from relayq.errors import RelayqError
from relayq.git import GitFailed, attempt, git, lines
from relayq.model import ignoring, sources
from relayq.model.shards import SourceFile
from relayq.parsing import size_text

#: What is larger isn't read by an agent in one go, and rarely written by hand.
LARGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Tree:
    """The source files below `root`, by their paths relative to it.

    `left_out` counts the others by why they are left out. `commit` is what a repository has checked
    out, None without one or where it has no commit; `is_dirty` tells whether the directory differs
    from it. `note` says why git couldn't be asked, where it should have been.
    """

    root: str
    files: tuple[SourceFile, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    commit: str | None = None
    is_dirty: bool = False
    note: str = ""

    @property
    def weight(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)


def list_tree(
    directory: str | os.PathLike[str], *, ext: Iterable[str] = (), largest: int = LARGEST
) -> Tree:
    """Return the source files of a directory; only those of the suffixes `ext`, if there are any.

    Raises RelayqError if there is no such directory, or none of its files can be read.
    """
    suffixes = sources.suffixes_of(ext)
    root = os.path.realpath(os.path.expanduser(directory))
    if not os.path.isdir(root):
        what = "is a file" if os.path.exists(root) else "there is no such directory"
        raise RelayqError(f"{os.fspath(directory)}: {what}", hint="relayq analyze DIR")
    listed, note = _by_git(root)
    by_git = listed is not None
    left_out: Counter[str] = Counter()
    files = []
    for path in sorted(set(_walked(root) if listed is None else listed)):
        why = sources.left_out_by_name(path, suffixes, by_git=by_git)
        found = why or _read(root, path, largest)
        if isinstance(found, SourceFile):
            files.append(found)
        elif found is not _GONE:
            left_out[found] += 1
    commit, is_dirty = _checked_out(root) if by_git else (None, False)
    counts = dict(sorted(left_out.items(), key=lambda one: (-one[1], one[0])))
    return Tree(root, tuple(files), counts, commit, is_dirty, note)


def read_texts(tree: Tree) -> dict[str, str]:
    """Return the texts of all files that can still be read."""
    found = {file.path: _text(tree.root, file.path) for file in tree.files}
    return {path: text for path, text in found.items() if text is not None}


def read_lines(root: str, path: str) -> Sequence[str] | None:
    """Return the lines of a file, None if it can't be read."""
    text = _text(root, path)
    return None if text is None else text.split("\n")


def _text(root: str, path: str) -> str | None:
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read().decode("utf-8", "replace")
    except (OSError, ValueError):
        return None


_GONE = ""


def _read(root: str, path: str, largest: int) -> SourceFile | str:
    """Return a file's facts, or why it is left out; one that is gone is nothing."""
    full = os.path.join(root, path)
    try:
        path.encode()
        found = os.lstat(full)
        if stat.S_ISLNK(found.st_mode):
            return sources.LINKS
        if not stat.S_ISREG(found.st_mode):
            return sources.UNREADABLE
        if found.st_size > largest:
            return sources.LARGE.format(limit=size_text(largest))
        with open(full, "rb") as file:
            content = file.read(largest + 1)
    except FileNotFoundError:  # git knows what was deleted, and it may be deleted right now
        return _GONE
    except (OSError, UnicodeEncodeError):  # no JSON holds a name that isn't UTF-8
        return sources.UNREADABLE
    if (why := sources.left_out_by_content(content)) is not None:
        return why
    count = content.count(b"\n") + (not content.endswith(b"\n"))
    digest = hashlib.sha256(content).hexdigest()
    return SourceFile(path, len(content), digest, stat.S_IMODE(found.st_mode), count)


def _by_git(root: str) -> tuple[list[str] | None, str]:
    """Return the files that git lists, None where it has no say, and why if that is a surprise."""
    try:
        code, answer, said = attempt(root, "rev-parse", "--is-inside-work-tree")
    except GitFailed as error:
        return None, error.message if os.path.exists(os.path.join(root, ".git")) else ""
    if code:
        is_expected = "not a git repository" in said
        return None, "" if is_expected else f"git can't be asked: {said.splitlines()[0]:.200}"
    is_ignored = attempt(root, "check-ignore", "--quiet", ".")[0] == 0
    if is_ignored or answer.strip() != "true":
        return None, ""  # the repository around it has nothing to do with it, or is no work tree
    listed: list[str] = []
    for path in lines(git(root, "ls-files", "-co", "--exclude-standard", "-z")):
        listed += _repository(root, path) if _is_directory(root, path) else [path]
    return listed, ""


def _is_directory(root: str, path: str) -> bool:
    return path.endswith("/") or os.path.isdir(os.path.join(root, path))


def _repository(root: str, path: str) -> Iterator[str]:
    """Yield the files of a repository within the repository: git names its directory only."""
    path = path.rstrip("/")
    full = os.path.join(root, path)
    if os.path.islink(full) or not os.path.exists(os.path.join(full, ".git")):
        yield from () if not os.path.islink(full) else (path,)
        return
    inside, _ = _by_git(full)
    yield from (f"{path}/{one}" for one in inside or ())


def _checked_out(root: str) -> tuple[str | None, bool]:
    code, commit, _ = attempt(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if code:
        return None, True
    return commit.strip(), bool(git(root, "status", "--porcelain", "-z", "--", "."))


def _walked(root: str) -> Iterator[str]:
    """Yield the files below a directory that no `.gitignore` in it excludes."""
    rules: dict[str, list[tuple[str, ignoring.Rule]]] = {"": []}
    for above, directories, names in os.walk(root):
        here = os.path.relpath(above, root).replace(os.sep, "/")
        here = "" if here == "." else here
        inherited = rules.pop(here)
        if ".gitignore" in names:
            text = _text(root, f"{here}/.gitignore" if here else ".gitignore") or ""
            inherited = inherited + [(here, rule) for rule in ignoring.read(text)]
        prefix = f"{here}/" if here else ""
        directories[:] = [
            name
            for name in sorted(directories)
            if not sources.is_foreign([name], by_git=False)
            and not ignoring.is_ignored(prefix + name, is_directory=True, rules=inherited)
        ]
        rules |= {prefix + name: inherited for name in directories}
        yield from (
            prefix + name
            for name in names
            if not ignoring.is_ignored(prefix + name, is_directory=False, rules=inherited)
        )
