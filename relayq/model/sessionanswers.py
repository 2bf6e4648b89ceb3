"""Reads what agents answer: by the schema if they kept to it, else what can be made of it.

An answer may be an object, one in a fence, one with prose around it, one that is cut off, a list,
or no JSON at all. Nothing here raises.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from relayq.model.findings import Answer, Issue, Severity
from relayq.model.shards import Shard

#: More findings than this in one shard are noise, or a loop.
MOST = 1000
_LONGEST = {"title": 300, "detail": 8000, "suggestion": 8000, "code": 2000}
_LONGEST_TEXT = 2**20
#: What moves a terminal's cursor, or turns the direction in which a line is read.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_LISTS: Final = ("issues", "findings", "vulnerabilities", "problems", "results")
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "file": ("file", "path", "filename", "file_path", "location"),
    "line": ("line", "line_number", "lineno", "start_line", "lines", "line_start"),
    "end_line": ("end_line", "line_end", "endline"),
    "severity": ("severity", "level", "priority", "risk"),
    "category": ("category", "type", "kind", "rule"),
    "title": ("title", "issue", "message", "summary", "name", "problem"),
    "detail": ("detail", "details", "description", "explanation", "impact"),
    "suggestion": ("suggestion", "fix", "recommendation", "remediation", "suggested_fix"),
    "code": ("code", "snippet", "evidence", "code_snippet"),
    "confidence": ("confidence",),
}
_SEVERITIES: Final = {
    "blocker": Severity.CRITICAL,
    "severe": Severity.CRITICAL,
    "major": Severity.HIGH,
    "error": Severity.HIGH,
    "important": Severity.HIGH,
    "moderate": Severity.MEDIUM,
    "warning": Severity.MEDIUM,
    "warn": Severity.MEDIUM,
    "medium-high": Severity.HIGH,
    "minor": Severity.LOW,
    "style": Severity.LOW,
    "nit": Severity.INFO,
    "note": Severity.INFO,
    "informational": Severity.INFO,
    "information": Severity.INFO,
}
_PLACE = re.compile(r"(?P<path>.+?):(?:L|line )?(?P<line>\d+)(?:[-:](?P<end>\d+))?$")
_RANGE = re.compile(r"L?(?P<line>\d+)(?:\s*(?:-|–|to)\s*L?(?P<end>\d+))?")
_KEYWORDS = re.compile(
    r"issue|vulnerab|bug|security|injection|leak|race|overflow|unsafe|error|risk", re.IGNORECASE
)


def read(structured: Any, text: str, shard: Shard) -> Answer:
    """Return the findings in an agent's answer: what it gave by the schema, else its text."""
    text = text[:_LONGEST_TEXT]
    if structured is not None:
        found = ([], None) if structured == [] else _listed(structured)
        # By a schema of the asker's own there may be no list of findings: then this isn't one.
        return _answer(found or ([], None), shard)
    if (found := next(_found(text), None)) is not None:
        return _answer(found, shard)
    saved = _entries(text)
    if saved:
        issues = tuple(_issues(saved, shard))
        problem = f"its JSON can't be read as a whole; {_count(issues)} could be saved"
        return Answer(shard.name, issues, (), problem)
    issues = tuple(_mentions(text, shard))
    said = "it answered nothing" if not text.strip() else "its answer has no findings in JSON"
    more = f"; {_count(issues)} were picked out of its text" if issues else ""
    return Answer(shard.name, issues, (), said + more)


def _count(issues: Sequence[Issue]) -> str:
    return "1 finding" if len(issues) == 1 else f"{len(issues)} findings"


def _listed(value: Any) -> tuple[list[Any], Any] | None:
    """Return the list of findings in a value, and the files that it says were analysed."""
    if isinstance(value, list):
        return (value, None) if any(_is_entry(one) for one in value) else None
    if not isinstance(value, dict):
        return None
    for name in _LISTS:
        if isinstance(found := value.get(name), list):
            return found, value.get("files_analyzed")
        if isinstance(found, dict):  # {"issues": {"a.py": [...]}}
            rows = [
                {**row, "file": row.get("file") or path} if isinstance(row, dict) else row
                for path, listed in found.items()
                if isinstance(listed, list)
                for row in listed
            ]
            return rows, value.get("files_analyzed")
    # An envelope, such as {"result": {"issues": []}} or {"analysis": "{\"issues\": []}"}.
    for inner in value.values():
        if isinstance(inner, dict) and any(name in inner for name in _LISTS):
            return _listed(inner)
    return None


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return any(name in value for name in _NAMES["title"] + _NAMES["detail"])


def _answer(found: tuple[list[Any], Any], shard: Shard) -> Answer:
    rows, said = found
    # Whoever says nothing of it was told to read them all.
    named = said if isinstance(said, list) else shard.paths
    problem = f"it reported {len(rows)} findings, of which {MOST} are kept"
    return Answer(
        shard.name,
        tuple(_issues(rows[:MOST], shard)),
        tuple(one for one in named if isinstance(one, str)),
        problem if len(rows) > MOST else "",
    )


def _found(text: str) -> Iterator[tuple[list[Any], Any]]:
    """Yield the lists of findings in a text: the whole, what is in fences, what is in its prose.

    Of several the last one counts: before it may stand what was asked for.
    """
    fences = re.findall(r"```(?:json\w*)?\s*\n(.*?)```", text, re.DOTALL | re.IGNORECASE)
    for one in (text, *reversed(fences)):
        try:
            value = json.loads(one)
        except (ValueError, RecursionError):
            continue
        if (found := ([], None) if value == [] else _listed(value)) is not None:
            yield found
    for value in reversed(list(_decoded(text, r"[{\[]"))):
        if (found := _listed(value)) is not None:
            yield found


def _decoded(text: str, start: str) -> Iterator[Any]:
    """Yield the values that begin at such a character, the outer ones only."""
    decoder, at, tries = json.JSONDecoder(strict=False), 0, 0
    # Each failure may read to the end: a text of nothing but braces would take for ever.
    while (match := re.compile(start).search(text, at)) is not None and tries < MOST:
        try:
            value, at = decoder.raw_decode(text, match.start())
            yield value
        except (ValueError, RecursionError):
            at, tries = match.end(), tries + 1


def _entries(text: str) -> list[Any]:
    """Return the findings that are whole in a text whose list isn't."""
    return [value for value in _decoded(text, r"\{") if _is_entry(value)][:MOST]


def _issues(rows: Sequence[Any], shard: Shard) -> Iterator[Issue]:
    for row in rows:
        if isinstance(row, str) and row.strip():
            yield _mention(row, shard) or Issue(
                "", None, Severity.MEDIUM, _short(row, "title"), shards=(shard.name,)
            )
        elif isinstance(row, dict) and (issue := _issue(row, shard)) is not None:
            yield issue


def _issue(row: Mapping[str, Any], shard: Shard) -> Issue | None:
    """Return the finding in a table, None if it says nothing."""
    said = {name: _named(row, names) for name, names in _NAMES.items()}
    title, detail = _short(said["title"], "title"), _short(said["detail"], "detail")
    if not title and not detail:
        return None
    file, line, end = _place(said["file"], said["line"], said["end_line"])
    return Issue(
        file=file,
        line=line,
        end_line=end,
        severity=_severity(said["severity"]),
        category=_short(said["category"], "title").casefold(),
        title=title or detail.splitlines()[0][: _LONGEST["title"]],
        detail=detail if title else "",
        suggestion=_short(said["suggestion"], "suggestion"),
        code=_short(said["code"], "code"),
        confidence=_confidence(said["confidence"]),
        shards=(shard.name,),
    )


def _named(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _short(value: Any, name: str) -> str:
    """Return a text within its limit that every file, Redis and a terminal can take."""
    if isinstance(value, list):
        value = "\n".join(str(one) for one in value)
    if not isinstance(value, str):
        return "" if value is None or isinstance(value, dict) else str(value)
    text = _CONTROLS.sub("", value).encode("utf-8", "replace").decode().strip()
    text = " ".join(text.split()) if name == "title" else text
    limit = _LONGEST[name]
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _place(file: Any, line: Any, end: Any) -> tuple[str, int | None, int | None]:
    """Return file, line and last line, wherever they were written."""
    if isinstance(file, dict):
        line = line if line is not None else _named(file, _NAMES["line"])
        file = _named(file, _NAMES["file"][:4])
    path = _short(file, "code")
    first, last = _number(line), _number(end)
    if isinstance(line, str) and (match := _RANGE.search(line)) is not None:
        first, last = int(match["line"][:9]), last or _number(match["end"])
    elif isinstance(line, list) and line:
        first, last = _number(line[0]), last or _number(line[-1])
    if (match := _PLACE.fullmatch(path)) is not None:
        path, first = match["path"], first or _number(match["line"])
        last = last or _number(match["end"])
    return path, first, last


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:9])
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value < 10**9 else None


def _severity(value: Any) -> Severity:
    word = value.strip().casefold() if isinstance(value, str) else ""
    if word in _SEVERITIES:
        return _SEVERITIES[word]
    return next((one for one in Severity if one.value in word), Severity.MEDIUM)


def _confidence(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        words = {"high": 0.9, "medium": 0.6, "low": 0.3}
        return words.get(value.strip().casefold()) if isinstance(value, str) else None
    value = float(value) / 100 if 1 < value <= 100 else float(value)
    return value if 0 <= value <= 1 else None


def _mentions(text: str, shard: Shard) -> Iterator[Issue]:
    """Yield what lines of prose say of the shard's files, where they sound like a finding."""
    for line in text.splitlines()[:MOST]:
        if _KEYWORDS.search(line) and (issue := _mention(line, shard)) is not None:
            yield issue


def _mention(line: str, shard: Shard) -> Issue | None:
    """Return the finding in a line that names one of the shard's files, None if it names none."""
    for path in sorted(shard.paths, key=len, reverse=True):
        name = path if path in line else path.rpartition("/")[2]
        match = re.search(
            rf"(?<![\w/]){re.escape(name)}(?:\s*(?::|,? line )\s*(?P<line>\d{{1,7}}))?", line
        )
        if match is None:
            continue
        word = re.search(r"critical|high|medium|low|info\b|warning|error", line, re.IGNORECASE)
        return Issue(
            file=path,
            line=_number(match["line"]),
            severity=_severity(word[0] if word else None),
            title=_short(re.sub(r"^[\s*#>\-\d.)]+", "", line), "title"),
            shards=(shard.name,),
        )
    return None
