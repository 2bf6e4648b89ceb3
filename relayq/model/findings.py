"""Findings of an analysis: what they are, what they cite, and which of them are the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final

from relayq.model.shards import Shard


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"

    @property
    def rank(self) -> int:
        """What it is sorted by: 0 is the worst."""
        return _RANKS[self]


_RANKS: Final = {severity: n for n, severity in enumerate(Severity)}


def _optional(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": [kind, "null"], **more}


#: What an agent has to answer. Every property is required, since some services demand that of a
#: strict schema; what need not be said is null.
SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["issues", "files_analyzed"],
    "properties": {
        "issues": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": [
                    *("file", "line", "end_line", "severity", "category", "title", "detail"),
                    *("code", "suggestion", "confidence"),
                ],
                "properties": {
                    "file": {"type": "string", "description": "its path, as it is listed"},
                    "line": _optional("integer", description="from 1 on; null for the whole file"),
                    "end_line": _optional("integer"),
                    "severity": {"type": "string", "enum": [one.value for one in Severity]},
                    "category": {"type": "string", "description": "security, bug or quality"},
                    "title": {"type": "string", "description": "one line"},
                    "detail": {"type": "string"},
                    "code": _optional("string", description="that line, copied from the file"),
                    "suggestion": _optional("string"),
                    "confidence": _optional("number", description="from 0 to 1"),
                },
            },
        },
        "files_analyzed": {"type": "array", "items": {"type": "string"}},
    },
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One finding; without a line it is about the whole file.

    `code` is what the line says, by the agent. `shards` are those whose sessions reported it.
    `doubt` says what is wrong with the place that it cites; empty once that was looked up.
    """

    file: str
    line: int | None
    severity: Severity
    title: str
    category: str = ""
    detail: str = ""
    suggestion: str = ""
    code: str = ""
    end_line: int | None = None
    confidence: float | None = None
    shards: tuple[str, ...] = ()
    doubt: str = ""

    @property
    def is_verified(self) -> bool:
        """Whether what it cites exists."""
        return not self.doubt

    @property
    def place(self) -> str:
        """Where it is, as compilers say it."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def fingerprint(self) -> str:
        """What stays the same when lines move: file, category and the words of the title."""
        said = "\n".join((self.file, self.category, " ".join(sorted(_words(self.title)))))
        return hashlib.sha256(said.encode()).hexdigest()[:24]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        raw = {f.name: getattr(self, f.name) for f in fields(self)}
        return raw | {"severity": self.severity.value, "shards": list(self.shards)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Issue:
        """Return the finding that `as_dict` gave; anything else is a ValueError."""
        try:
            known = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
            known |= {"severity": Severity(raw["severity"]), "shards": tuple(raw["shards"])}
            return cls(**known)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no finding: {error}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """What a session found in its shard.

    `analysed` are the files that it says it read. `problem` tells what is wrong with the answer
    itself: then the issues are those that could be saved of it.
    """

    shard: str
    issues: tuple[Issue, ...] = ()
    analysed: tuple[str, ...] = ()
    problem: str = ""


def check(
    answer: Answer,
    shard: Shard,
    lines_of: Callable[[str], Sequence[str] | None] | None,
    known: Collection[str] = (),
    *,
    cwd: str = "",
) -> Answer:
    """Return the answer with the places of its findings looked up in the files.

    Paths become those of the shard, however they were written; a line is corrected where the code
    that it quotes stands elsewhere. What can't be found leaves a doubt and is kept. `known` are all
    files of the codebase; `cwd` is where the session ran, if that is known. Without `lines_of`, as
    on a machine that has no such files, a line only has to be within the file that was planned.
    """
    paths = _Paths(shard.paths, known, cwd)
    counts = {file.path: file.lines for file in shard.files}
    texts: dict[str, Sequence[str] | None] = {}
    checked = []
    for issue in answer.issues:
        path, doubt = paths.find(issue.file)
        if doubt:
            checked.append(replace(issue, file=path, doubt=doubt))
            continue
        issue = replace(issue, file=path)
        if lines_of is None:
            checked.append(_bounded(issue, counts[path]))
            continue
        if path not in texts:
            texts[path] = lines_of(path)
        checked.append(_located(issue, texts[path]))
    said = [path for one in answer.analysed if (path := paths.own(one))]
    said += [issue.file for issue in checked if issue.is_verified]
    read = tuple(path for path in shard.paths if path in set(said))
    problem = answer.problem or ("" if read else "it says that it read none of its files")
    return replace(answer, issues=tuple(checked), analysed=read, problem=problem)


class _Paths:
    """Finds the file that is meant by what an agent calls it."""

    def __init__(self, own: Collection[str], known: Collection[str], cwd: str) -> None:
        self._own = set(own)
        self._known = self._own | set(known)
        self._folded = {path.casefold(): path for path in sorted(self._own, reverse=True)}
        self._cwd = _plain(cwd)

    def own(self, said: str) -> str:
        """Return the shard's file of that name, empty if there is none."""
        path, doubt = self.find(said)
        return "" if doubt else path

    def find(self, said: str) -> tuple[str, str]:
        """Return a path, and what is wrong with it if no file of the shard can be meant."""
        path = _plain(said)
        if self._cwd and path.startswith(f"{self._cwd}/"):
            path = path[len(self._cwd) + 1 :]
        if not path:
            return "", "it cites no file"
        shorter = path[2:] if path.startswith(("a/", "b/")) else path  # as a diff shows it
        for tried in (path, shorter, self._folded.get(path.casefold(), path)):
            if tried in self._own:
                return tried, ""
        found = path if path in self._known else self._within(path)
        if found is not None:
            other = "it cites a file that this session wasn't given"
            return found, "" if found in self._own else other
        ends = [one for one in self._own if one.endswith(f"/{path}")]
        if len(ends) == 1:
            return ends[0], ""
        return path, f"it may mean any of {len(ends)} files" if ends else f"there is no file {path}"

    def _within(self, path: str) -> str | None:
        """Return the file that a longer path ends with: as it is called on another host.

        A name alone is too little, unless the path is absolute and nobody knows where it was.
        """
        is_foreign = path.startswith("/") and not self._cwd
        ends = [
            one for one in self._known if path.endswith(f"/{one}") and (is_foreign or "/" in one)
        ]
        return max(ends, key=len, default=None)


def _plain(said: str) -> str:
    """Return a path with its separators and its beginning as they are in a shard."""
    path = said.strip().strip("`'\"").replace("\\", "/")
    path = re.sub(r"^(?:file://|[A-Za-z]:(?=/))", "", path)
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] not in ("..", ""):
            parts.pop()
        elif part != "." and (part or not parts):
            parts.append(part)
    return "/".join(parts)


def _bounded(issue: Issue, count: int) -> Issue:
    """Return a finding whose lines are within a file of so many, or with a doubt."""
    line = issue.line if issue.line is not None and issue.line > 0 else None
    end = issue.end_line
    if line is None or end is None or end <= line:
        end = None
    elif end > count:
        end = count if line < count else None
    issue = replace(issue, line=line, end_line=end)
    if line is not None and line > count:
        return replace(issue, doubt=f"it cites line {line} of {count}")
    return issue


def _located(issue: Issue, lines: Sequence[str] | None) -> Issue:
    """Return a finding with its line where it should be, or with a doubt."""
    if lines is None:
        return replace(issue, doubt="the file can't be read any more")
    count = len(lines) - (1 if lines and not lines[-1] else 0)
    quoted, line = _quote(issue.code), issue.line
    bounded = _bounded(issue, count)
    if not quoted:
        return bounded
    at = _quoted(quoted, lines, line)
    if at is None:
        doubt = bounded.doubt or "the code that it quotes isn't in the file"
        return replace(bounded, doubt=doubt)
    if bounded.line is None or line is None:
        return replace(bounded, line=at)
    moved = None if issue.end_line is None else issue.end_line + at - line
    return _bounded(replace(issue, line=at, end_line=moved), count)


#: Less than this stands anywhere: a brace, a `pass`.
_SHORTEST_QUOTE = 6


def _quote(code: str) -> str:
    """Return the first line of a quotation, of what it leaves out the longest piece around it."""
    lines = [words for one in code.splitlines() if (words := " ".join(one.split()))]
    pieces = re.split(r"\.\.\.|…", lines[0]) if lines else []
    longest = max(pieces, key=len, default="").strip()
    return longest if len(longest) >= _SHORTEST_QUOTE else ""


def _quoted(code: str, lines: Sequence[str], line: int | None) -> int | None:
    """Return the number of the line that has this code, the nearest one if several do."""
    found = [n for n, text in enumerate(lines, 1) if code in " ".join(text.split())]
    if not found:
        # A number and a bar, or a colon, before the code: as tools show a file to an agent.
        bare = re.sub(r"^\d+\s*[:|→]?\s*", "", code)
        found = [n for n, text in enumerate(lines, 1) if bare and bare in " ".join(text.split())]
    return min(found, key=lambda n: (abs(n - (line or 0)), n), default=None)


#: So far apart two sessions, or one twice, may see the same thing.
_NEAR = 2
_ALIKE = 0.6


def merge(answers: Iterable[Answer]) -> list[Issue]:
    """Return the findings of all answers, each once, sorted by file, severity and line."""
    by_place: dict[str, list[Issue]] = {}
    for issue in sorted((issue for one in answers for issue in one.issues), key=_weight):
        same = by_place.setdefault(issue.file, [])
        for n, kept in enumerate(same):
            if is_same(kept, issue):
                same[n] = _both(kept, issue)
                break
        else:
            same.append(issue)
    return sorted((issue for found in by_place.values() for issue in found), key=_order)


def is_same(one: Issue, other: Issue) -> bool:
    """Tell whether two findings in the same file say the same."""
    if one.file != other.file:
        return False
    likeness = _likeness(one.title, other.title)
    if one.line is None or other.line is None:
        return likeness >= _ALIKE
    if abs(one.line - other.line) > _NEAR:
        return False
    is_one_kind = bool(one.category) and one.category.casefold() == other.category.casefold()
    return likeness >= (_ALIKE / 2 if is_one_kind else _ALIKE)


def _both(kept: Issue, other: Issue) -> Issue:
    """Return the better of two findings, with what only the other one says."""
    line, end = kept.line, kept.end_line
    if line is None:
        line, end = other.line, other.end_line
    return replace(
        kept,
        line=line,
        end_line=end,
        category=kept.category or other.category,
        detail=kept.detail or other.detail,
        suggestion=kept.suggestion or other.suggestion,
        shards=tuple(dict.fromkeys(kept.shards + other.shards)),
    )


def _weight(issue: Issue) -> tuple[Any, ...]:
    """Return what the better one of two findings has less of; equal only for equal ones."""
    texts = (issue.category, issue.suggestion, issue.code, issue.doubt)
    return (
        not issue.is_verified,
        issue.severity.rank,
        -(issue.confidence or 0.0),
        -len(issue.detail),
        issue.shards,
        *_order(issue),
        *texts,
        issue.end_line or 0,
    )


def _order(issue: Issue) -> tuple[Any, ...]:
    return (issue.file, issue.severity.rank, issue.line or 0, issue.title, issue.detail)


_IDLE: Final = frozenset("a an the of in on is are be to and or for with by may can could".split())


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold())) - _IDLE


def _likeness(one: str, other: str) -> float:
    """Return from 0 to 1 how many words two titles share."""
    first, second = _words(one), _words(other)
    if not first or not second:
        return float(one == other)
    return len(first & second) / len(first | second)


def by_file(answer: Answer) -> dict[str, list[Issue]]:
    """Return the findings of each file that was analysed, of most of them none: what is cached.

    What is in doubt, or about a file that the session didn't analyse, isn't kept.
    """
    found: dict[str, list[Issue]] = {path: [] for path in answer.analysed}
    for issue in answer.issues:
        if issue.is_verified and issue.file in found:
            found[issue.file].append(issue)
    return found


def from_cache(found: Mapping[str, Sequence[Issue]], shard: str = "") -> Answer:
    """Return what earlier sessions found in files that haven't changed since."""
    issues = tuple(issue for path in sorted(found) for issue in found[path])
    return Answer(shard, issues, tuple(sorted(found)))


def cache_key(
    path: str,
    sha256: str,
    *,
    template: str,
    schema: Mapping[str, Any] | None,
    agent: str,
    model: str | None,
) -> str:
    """Return what names the findings of a file: another content, question or model is another."""
    said = [1, path, sha256, template, schema, agent, model]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
