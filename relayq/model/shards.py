"""Shards: the files of a codebase in parts that an agent's session can read at a time.

A directory that is large enough is a shard of its own, a large one becomes several, small ones are
put together with their neighbours. The same files always make the same shards.
"""

from __future__ import annotations

import os.path
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from relayq.errors import RelayqError
from relayq.model import packing
from relayq.model.importgraph import clusters
from relayq.model.packing import Bounds, Part, SourceFile

__all__ = ["FIRST", "WAYS", "WEIGHT_LIMIT", "Shard", "SourceFile", "halves", "plan"]

#: Bytes of a shard: some 75,000 tokens, which leaves room in a context of 200,000 to think.
WEIGHT_LIMIT: Final = 300_000
#: Paths of what must not be wrong, for security's sake.
FIRST: Final = (
    r"auth(?!or(?!i[sz]))|login|session|passw|credential|secret|token(?!i[sz])|crypt|cipher|"
    r"signing|signature|certificate|(?<![a-z])(?:tls|ssl|jwt|acl|rbac|cors|csrf|xss|pki)(?![a-z])|"
    r"saml|permission|privilege|sandbox|sanitiz|security|payment|upload|deserial|pickle"
)
_TESTS = re.compile(
    r"(?:^|/)(?:tests?|testing|__tests__|spec|fixtures|examples?|docs?|benchmarks?)/"
    r"|(?:^|/)(?:test_|conftest)[^/]*$|(?:_test|\.test|\.spec)\.\w+$",
    re.IGNORECASE,
)
TOP: Final = "(top)"
_LONGEST_NAME = 30
_INDEXES = frozenset({"__init__", "index"})


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that one session analyses."""

    name: str
    files: tuple[SourceFile, ...]

    @property
    def weight(self) -> int:
        """The bytes of its files."""
        return sum(file.size for file in self.files)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of its files."""
        return tuple(file.path for file in self.files)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON keeps it."""
        return {"name": self.name, "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Shard:
        """Return the shard that `as_dict` gave; anything else is a ValueError."""
        try:
            return cls(str(raw["name"]), tuple(SourceFile(**one) for one in raw["files"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no shard: {error}") from error


def plan(
    files: Iterable[SourceFile],
    *,
    by: str = "dir",
    smallest: int = 5,
    largest: int = 20,
    weight_limit: int = WEIGHT_LIMIT,
    first: str | None = FIRST,
    imports: Mapping[str, Collection[str]] | None = None,
) -> list[Shard]:
    """Return the shards in the order in which they are to run; no file is lost or in two of them.

    A shard has `smallest` to `largest` files, and fewer only where the bytes of more would be above
    the limit, or where there are no more. Those that `first` matches come first, tests last.
    `imports` says for each file which others it imports; only `by="imports"` asks for it.
    """
    if by not in WAYS:
        raise RelayqError(f"{by!r} is no way to divide files", hint=f"--by {'|'.join(WAYS)}")
    if smallest < 1 or largest < smallest or weight_limit < 1:
        raise RelayqError(
            f"a shard can't have from {smallest} to {largest} files", hint="relayq analyze --help"
        )
    urgent = _pattern(first)
    bounds = Bounds(smallest, largest, weight_limit)
    ordered = sorted({file.path: file for file in files}.values(), key=lambda file: file.path)
    if not ordered:
        return []
    parts = (
        _by_imports(ordered, bounds, imports or {})
        if by == "imports"
        else _PLANNERS[by](ordered, bounds)
    )
    top = _top(ordered) if by in ("dir", "imports") else ""
    parts = sorted(packing.settled(parts, bounds), key=lambda part: part.files[0].path)
    shards = [
        Shard(name, tuple(sorted(part.files, key=lambda file: file.path)))
        for name, part in zip(_names(parts, top), parts, strict=True)
    ]
    return sorted(shards, key=lambda shard: _turn(shard, urgent))


def halves(shard: Shard) -> list[Shard]:
    """Return the two halves of a shard, by weight; none of a shard with a single file."""
    if len(shard.files) < 2:
        return []
    cut = packing.cut(shard.files, 2, Bounds(1, len(shard.files), shard.weight))
    return [Shard(f"{shard.name}.{n}", tuple(part)) for n, part in enumerate(cut, 1)]


def _by_directory(files: Sequence[SourceFile], bounds: Bounds) -> list[Part]:
    tree: dict[str, list[SourceFile]] = {}
    for file in files:
        tree.setdefault(os.path.dirname(file.path), []).append(file)
    below: dict[str, list[str]] = {}
    for directory in tree:
        while directory:
            above = os.path.dirname(directory)
            known = below.setdefault(above, [])
            if directory in known:
                break
            known.append(directory)
            directory = above
    return _grown("", tree, {above: sorted(names) for above, names in below.items()}, bounds)


def _grown(
    directory: str,
    tree: Mapping[str, Sequence[SourceFile]],
    below: Mapping[str, Sequence[str]],
    bounds: Bounds,
) -> list[Part]:
    """Return the parts of a directory and all below it; few of them have too few files."""
    own = tree.get(directory, ())
    parts = [Part((directory,), list(own))] if own else []
    for one in below.get(directory, ()):
        parts += _grown(one, tree, below, bounds)
    together = [file for part in parts for file in part.files]
    if together and bounds.holds(together):
        return [Part((_top(together),), together)]
    return packing.merged(
        [small for part in parts for small in packing.split(part, bounds)], bounds
    )


def _by_type(files: Sequence[SourceFile], bounds: Bounds) -> list[Part]:
    groups: dict[str, list[SourceFile]] = {}
    for file in files:
        name = file.path.rpartition("/")[2]
        _, dot, suffix = name.rpartition(".")
        groups.setdefault((suffix if dot else name).lower(), []).append(file)
    parts = [Part((name,), found) for name, found in sorted(groups.items())]
    return packing.merged(
        [small for part in parts for small in packing.split(part, bounds)], bounds
    )


def _by_count(files: Sequence[SourceFile], bounds: Bounds) -> list[Part]:
    even = Part(("part",), [SourceFile(file.path, 1) for file in files])
    known = {file.path: file for file in files}
    parts = packing.split(even, Bounds(bounds.smallest, bounds.largest, len(files)))
    return [
        small
        for part in parts
        for small in packing.split(
            Part(part.labels, [known[file.path] for file in part.files]), bounds
        )
    ]


def _by_size(files: Sequence[SourceFile], bounds: Bounds) -> list[Part]:
    return [Part(("size",), found) for found in packing.level(files, bounds)]


def _by_imports(
    files: Sequence[SourceFile], bounds: Bounds, imports: Mapping[str, Collection[str]]
) -> list[Part]:
    found = clusters(files, imports, bounds)
    parts = [Part((_stem(hub),), group) for hub, group in found]
    large = [part for part in parts if len(part.files) >= bounds.smallest]
    alone = [file for part in parts if len(part.files) < bounds.smallest for file in part.files]
    # What imports nothing and is imported by nobody stays with the files beside it.
    return large + _by_directory(sorted(alone, key=lambda file: file.path), bounds)


def _stem(path: str) -> str:
    stem = os.path.splitext(path)[0]
    return os.path.dirname(stem) or stem if os.path.basename(stem) in _INDEXES else stem


_PLANNERS: Final[Mapping[str, Callable[[Sequence[SourceFile], Bounds], list[Part]]]] = {
    "dir": _by_directory,
    "type": _by_type,
    "size": _by_size,
    "count": _by_count,
}
WAYS: Final = (*_PLANNERS, "imports")


def _top(files: Sequence[SourceFile]) -> str:
    """Return the directory that all files are in: it says nothing in a name."""
    return os.path.commonpath([os.path.dirname(file.path) for file in files])


def _names(parts: Sequence[Part], top: str) -> list[str]:
    """Return a name for each part, none twice: equal ones are numbered as `api[1/2]`."""
    plain = [_name(part.labels, top) for part in parts]
    total, count = Counter(plain), Counter[str]()
    names: list[str] = []
    for name in plain:
        count[name] += 1
        numbered = f"{name}[{count[name]}/{total[name]}]" if total[name] > 1 else name
        while numbered in names:
            numbered += "'"
        names.append(numbered)
    return names


def _name(labels: Sequence[str], top: str) -> str:
    """Return what a part is called that has its files from these directories."""
    outer = [
        one
        for one in dict.fromkeys(labels)
        if not any(one.startswith(f"{other}/") or not other for other in labels if other != one)
    ]
    shown = [(os.path.relpath(one, top) if top else one) for one in outer]
    shown = [TOP if one in ("", ".") else one for one in shown]
    if len(shown) == 1:
        return shown[0]
    above = os.path.commonpath(shown)
    words = [os.path.relpath(one, above) if above else one for one in shown]
    joined = "+".join(words)
    if len(joined) > _LONGEST_NAME:
        joined = f"{words[0]}+{len(words) - 1}"
    return f"{above}/{joined}" if above else joined


def _pattern(first: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(first, re.IGNORECASE) if first else None
    except re.error as error:
        raise RelayqError(
            f"{first!r} is no regular expression: {error}", hint="--first 'auth|crypto|secret'"
        ) from error


def _turn(shard: Shard, urgent: re.Pattern[str] | None) -> tuple[bool, float]:
    """Return what a shard is sorted by: how much of it is urgent, and whether it is only tests."""
    if urgent is None:
        return False, 0.0
    tests = sum(_TESTS.search(path) is not None for path in shard.paths)
    found = sum(urgent.search(path) is not None for path in shard.paths if not _TESTS.search(path))
    return tests == len(shard.paths), -round(found / len(shard.paths), 2)
