"""Which files of a codebase import which, read from their texts, and which belong together so.

Python, JavaScript and TypeScript, Go. What can't be found among the files is another's library.
"""

from __future__ import annotations

import heapq
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from relayq.model.packing import Bounds, SourceFile

_PYTHON: Final = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<source>\.*[\w.]*)[ \t]+import[ \t]+"
    r"(?P<names>\([^)]*\)|[^\n;#]+)|import[ \t]+(?P<modules>[\w.]+[^\n;#]*))",
    re.MULTILINE,
)
_SCRIPT: Final = re.compile(
    r"""(?:\bfrom|\bimport|\brequire[ \t]*\(|\bimport[ \t]*\()\s*(['"])(?P<source>[^'"\n]+)\1"""
)
_GO_BLOCK: Final = re.compile(
    r"^import\s*(\((?P<block>[^)]*)\)|[\w.]*\s*\"(?P<one>[^\"]+)\")", re.M
)
_QUOTED: Final = re.compile(r'"([^"\n]+)"')
_SCRIPTS: Final = (".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts", ".vue", ".svelte")


def import_graph(texts: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return for each file the other files that it imports."""
    python, script, go = _Python(texts), _Script(texts), _Go(texts)
    graph = {}
    for path, text in texts.items():
        found: Iterable[str] = ()
        if path.endswith((".py", ".pyi")):
            found = python.imported(path, text)
        elif path.endswith(_SCRIPTS):
            found = script.imported(path, text)
        elif path.endswith(".go"):
            found = go.imported(text)
        graph[path] = tuple(sorted(set(found) - {path}))
    return graph


class _Python:
    """Modules by their dotted names: from the directory without `__init__.py`, and from the top."""

    def __init__(self, texts: Collection[str]) -> None:
        self._modules: dict[str, str] = {}
        self._packages = {
            posixpath.dirname(path) for path in texts if posixpath.basename(path) == "__init__.py"
        }
        for path in sorted(path for path in texts if path.endswith((".py", ".pyi"))):
            for name in (self._name(path), _dotted(path)):
                self._modules.setdefault(name, path)

    def _name(self, path: str) -> str:
        root = posixpath.dirname(path)
        while root in self._packages and root:
            root = posixpath.dirname(root)
        return _dotted(path[len(root) + 1 :] if root else path)

    def imported(self, path: str, text: str) -> Iterator[str]:
        own = self._name(path)
        if posixpath.basename(path) != "__init__.py":
            own = own.rpartition(".")[0]
        for match in _PYTHON.finditer(text):
            if match["modules"]:
                for one in match["modules"].split(","):
                    yield from self._found([one.split()[0]] if one.split() else [])
                continue
            source = match["source"].lstrip(".")
            if dots := len(match["source"]) - len(source):
                above = own.split(".") if own else []
                above = above[: len(above) - dots + 1]
                source = ".".join([*above, *([source] if source else [])])
            for name in re.findall(r"(?:^|,)\s*(\w+)", match["names"].strip("()")):
                yield from self._found([f"{source}.{name}", source])

    def _found(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the module of the first name that there is; of `a.b.c` also that of `a.b`."""
        for name in names:
            while name:
                if (path := self._modules.get(name)) is not None:
                    yield path
                    return
                if "." not in name or len(name.split(".")) <= 2:
                    break
                name = name.rpartition(".")[0]


def _dotted(path: str) -> str:
    name = posixpath.splitext(path)[0].replace("/", ".")
    return name.removesuffix(".__init__") if name != "__init__" else ""


class _Script:
    """Files by relative paths, whose suffixes are left away; `@/` and `~/` are the source's top."""

    def __init__(self, texts: Collection[str]) -> None:
        self._paths = set(texts)

    def imported(self, path: str, text: str) -> Iterator[str]:
        for match in _SCRIPT.finditer(text):
            source = match["source"]
            if source.startswith("."):
                tried = [posixpath.normpath(posixpath.join(posixpath.dirname(path), source))]
            elif source.startswith(("@/", "~/")):
                tried = [f"{top}{source[2:]}" for top in _tops(path)]
            else:
                continue
            found = (one for base in tried if (one := self._file(base)) is not None)
            if (one := next(found, None)) is not None:
                yield one

    def _file(self, base: str) -> str | None:
        stem = re.sub(r"\.[mc]?js$", "", base)  # TypeScript imports a file by its compiled name
        names = [base, *(stem + suffix for suffix in _SCRIPTS)]
        names += [f"{base}/index{suffix}" for suffix in _SCRIPTS]
        return next((name for name in names if name in self._paths), None)


def _tops(path: str) -> Iterator[str]:
    """Yield the directories, each with its slash, that `@/` may mean in a file."""
    parts = path.split("/")[:-1]
    for n in range(len(parts), -1, -1):
        above = "".join(f"{part}/" for part in parts[:n])
        yield above
        yield f"{above}src/"


class _Go:
    """Packages by the ends of their import paths, since the module's name is in no source file."""

    def __init__(self, texts: Collection[str]) -> None:
        self._packages: dict[str, list[str]] = defaultdict(list)
        for path in sorted(texts):
            if path.endswith(".go") and not path.endswith("_test.go"):
                self._packages[posixpath.dirname(path)].append(path)

    def imported(self, text: str) -> Iterator[str]:
        for match in _GO_BLOCK.finditer(text):
            named = [match["one"]] if match["one"] else _QUOTED.findall(match["block"] or "")
            for name in named:
                parts = name.split("/")
                if "." not in parts[0]:  # the standard library
                    continue
                ends = ("/".join(parts[n:]) for n in range(1, len(parts)))
                found = next((end for end in ends if end in self._packages), None)
                yield from self._packages[found] if found is not None else ()


def clusters(
    files: Sequence[SourceFile], imports: Mapping[str, Collection[str]], bounds: Bounds
) -> list[tuple[str, list[SourceFile]]]:
    """Return groups of files that import each other, each with the file most used in it.

    The closest two groups are joined again and again, as long as the bounds hold them.
    """
    links = _links([file.path for file in files], imports)
    groups: dict[int, list[SourceFile]] = {n: [file] for n, file in enumerate(files)}
    number = {file.path: n for n, file in enumerate(files)}
    near: dict[int, dict[int, float]] = {
        number[path]: {number[other]: weight for other, weight in sorted(found.items())}
        for path, found in links.items()
    }
    heap: list[tuple[float, int, int]] = []

    def consider(one: int, other: int) -> None:
        close = near[one][other] / (len(groups[one]) * len(groups[other])) ** 0.5
        heapq.heappush(heap, (-close, min(one, other), max(one, other)))

    for one, others in near.items():
        for other in others:
            if one < other:
                consider(one, other)
    newest = len(files)
    while heap:
        _, one, other = heapq.heappop(heap)
        if one not in groups or other not in groups:
            continue
        both = groups[one] + groups[other]
        if not bounds.holds(both):
            continue
        del groups[one], groups[other]
        groups[newest] = both
        near[newest] = _joined(near, one, other, newest)
        for third in near[newest]:
            consider(newest, third)
        newest += 1
    return [(_hub(group, links), group) for _, group in sorted(groups.items())]


def _links(
    paths: Sequence[str], imports: Mapping[str, Collection[str]]
) -> dict[str, dict[str, float]]:
    """Return how close any two files are: what everybody imports brings nobody together."""
    known = set(paths)
    users: dict[str, int] = defaultdict(int)
    pairs = [
        (path, other)
        for path in paths
        for other in sorted(set(imports.get(path, ())))
        if other in known and other != path
    ]
    for _, other in pairs:
        users[other] += 1
    links: dict[str, dict[str, float]] = {path: {} for path in paths}
    for path, other in pairs:
        # Neighbours in a directory are closer than what is imported from afar.
        beside = 2.0 if posixpath.dirname(path) == posixpath.dirname(other) else 1.0
        for a, b in ((path, other), (other, path)):
            links[a][b] = links[a].get(b, 0.0) + beside / users[other]
    return links


def _joined(near: dict[int, dict[int, float]], one: int, other: int, both: int) -> dict[int, float]:
    """Return the links of two groups together, and change those of all others to them."""
    found: dict[int, float] = {}
    for gone in (one, other):
        for third, weight in near.pop(gone).items():
            if third not in (one, other):
                found[third] = found.get(third, 0.0) + weight
                del near[third][gone]
    for third, weight in found.items():
        near[third][both] = weight
    return found


def _hub(group: Sequence[SourceFile], links: Mapping[str, Mapping[str, float]]) -> str:
    """Return the file with most of the links within its group."""
    inside = {file.path for file in group}

    def count(path: str) -> float:
        return sum(weight for other, weight in links[path].items() if other in inside)

    return min(inside, key=lambda path: (-count(path), path))
