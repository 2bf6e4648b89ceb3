"""The form of an audit trail: lines of JSON, each with the hash of itself and all before it.

A line is changed, taken out or put in only by who writes all lines after it anew. What a crash or
a full disk does to a file isn't hidden by that and needn't be: the next line says what was cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: The hash before the first line.
START = "0" * 64
#: What an entry is called that says what is missing before it.
CUT = "cut"
#: What an entry is called that begins a file; it repeats the hash of the one before.
OPENED = "opened"
#: What an entry is called that says up to which number entries were removed for their age.
PRUNED = "pruned"
_HASH = b',"hash":"'
_END = b'"}\n'
_DIGITS = 64
#: A line has this length at most; a longer text in it is shortened.
LONGEST = 8192
_LONGEST_TEXT = 1000
#: What a clock may be behind before that counts as a step: two threads, two processes.
_STEP = 0.5

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Head(NamedTuple):
    """The end of a chain: the number and the hash of its last entry."""

    number: int = 0
    hash: str = START


class Line(NamedTuple):
    """An entry as it is written, and the head of the chain with it."""

    raw: bytes
    head: Head


def line(head: Head, at: float, what: str, facts: Mapping[str, Any], *, skips: int = 0) -> Line:
    """Return the next entry of a chain; it `skips` the numbers of entries that were lost."""
    number = head.number + skips + 1
    entry: dict[str, Any] = {"n": number, "at": round(at, 3), "what": what}
    for name, value in facts.items():
        if value is not None:
            entry[name] = _short(value)
    body = _encode(entry)[:-1].encode()
    digest = _digest(head.hash, body)
    return Line(body + _HASH + digest.encode() + _END, Head(number, digest))


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}..."
    return value


def _digest(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()


class Entry(NamedTuple):
    """A line that was read: what it says, and its hash."""

    facts: Mapping[str, Any]
    body: bytes
    hash: str

    @property
    def number(self) -> int:
        """Its number."""
        return int(self.facts["n"])

    @property
    def what(self) -> str:
        """What happened."""
        return str(self.facts["what"])

    @property
    def at(self) -> float:
        """When, in Unix seconds by the clock of who wrote it."""
        return float(self.facts["at"])

    @property
    def head(self) -> Head:
        """The head of the chain with it."""
        return Head(self.number, self.hash)

    def follows(self, before: str) -> bool:
        """Whether it is what was written after the entry with that hash."""
        return _digest(before, self.body) == self.hash


def parsed(raw: bytes) -> Entry | None:
    """Return a line's entry, None for what isn't a whole one."""
    body, found, rest = raw.rpartition(_HASH)
    if not found or len(rest) != _DIGITS + len(_END) or not rest.endswith(_END):
        return None
    try:
        facts = json.loads(body + b"}")
        entry = Entry(facts, body, rest[:_DIGITS].decode("ascii"))
        float(entry.facts["at"]), int(entry.facts["n"]), str(entry.facts["what"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return entry


class Cut(NamedTuple):
    """A place at which entries are missing, and why, as the entry after it says."""

    after: int
    at: float
    reason: str
    lost: int = 0
    torn: int = 0


class Break(NamedTuple):
    """The place from which on nothing is proved."""

    place: str
    after: int
    why: str


@dataclass
class Finding:
    """What a look at a whole chain found: broken at one place, or whole, with its cuts."""

    entries: int = 0
    files: int = 0
    first: int | None = None
    head: Head = Head()
    began_at: float | None = None
    ended_at: float | None = None
    cuts: list[Cut] = field(default_factory=list)
    #: Up to which entry they were removed for their age.
    pruned: int = 0
    #: How often the clock was behind the entry before, and the furthest in seconds.
    steps_back: int = 0
    furthest_back: float = 0.0
    broken: Break | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed, taken out or put in."""
        return self.broken is None


class Chain:
    """Reads a chain from its beginning, file by file."""

    def __init__(self, known: Head | None = None) -> None:
        self.found = Finding()
        self._known = known
        self._is_met = known is None
        self._torn: list[bytes] = []

    def read(self, name: str, lines: Iterable[bytes]) -> Iterable[Entry]:
        """Yield the entries of a file, the next one of the chain, until it is broken."""
        found = self.found
        found.files += 1
        for number, raw in enumerate(lines, 1):
            entry = parsed(raw)
            if entry is None:
                self._torn.append(raw)
                continue
            if not self._take(entry, f"{name}:{number}"):
                return
            yield entry

    def end(self, head: Head | None) -> Finding:
        """Return what was found; `head` is what was noted apart from the lines, if anything was."""
        found = self.found
        if found.broken is None and self._torn:
            found.cuts.append(
                Cut(found.head.number, found.ended_at or 0.0, "torn", torn=_size(self._torn))
            )
        if found.first is not None and found.first > found.pruned + 1:
            gone = found.first - 1
            found.cuts.insert(0, Cut(0, found.began_at or 0.0, "its first files are gone", gone))
        known = None if self._is_met else self._known
        if found.broken is None and known is not None and known.number >= (found.first or 1):
            why = f"entry {known.number} was known, and isn't here"
            found.broken = Break("its end", found.head.number, why)
        if found.broken is None and head is not None and head.number > found.head.number:
            missing = head.number - found.head.number
            why = f"{missing} {'entry was' if missing == 1 else 'entries were'} written after it"
            found.broken = Break("its end", found.head.number, f"{why}, and are gone")
        return found

    def _take(self, entry: Entry, place: str) -> bool:
        found = self.found
        before = found.head
        if found.first is None:
            # Files before it may have been removed for their age; this one says what was before.
            said = entry.facts.get("before")
            if entry.what == OPENED and isinstance(said, str):
                before = Head(entry.number - 1, said)
            found.first = entry.number
        why = self._fault(entry, before)
        if why is not None:
            found.broken = Break(place, before.number, why)
            return False
        self._note(entry, before)
        self._torn.clear()
        found.entries += 1
        found.head = entry.head
        return True

    def _fault(self, entry: Entry, before: Head) -> str | None:
        if not entry.follows(before.hash):
            return "its hash isn't that of what is written up to there"
        if self._known is not None and entry.number == self._known.number:
            if entry.hash != self._known.hash:
                return "it isn't the entry that was known: all was written anew"
            self._is_met = True
        is_cut = entry.what == CUT
        said = entry.facts.get("torn_sha256") if is_cut else None
        if self._torn and said != torn_digest(self._torn):
            return "what is before it is no entry, and no entry says that it was torn"
        skipped = entry.number - before.number - 1
        if skipped and skipped != (entry.facts.get("lost", 0) if is_cut else 0):
            return f"it has number {entry.number}, and comes after {before.number}"
        return None

    def _note(self, entry: Entry, before: Head) -> None:
        found, facts = self.found, entry.facts
        if entry.what == CUT:
            found.cuts.append(
                Cut(
                    before.number,
                    entry.at,
                    str(facts.get("reason", "")),
                    lost=int(facts.get("lost", 0)) + int(facts.get("missed", 0)),
                    torn=int(facts.get("torn", 0)),
                )
            )
        if entry.what == PRUNED:
            found.pruned = max(found.pruned, int(facts.get("through", 0)))
        if found.ended_at is not None and entry.at < found.ended_at - _STEP:
            found.steps_back += 1
            found.furthest_back = max(found.furthest_back, found.ended_at - entry.at)
        if found.began_at is None:
            found.began_at = entry.at
        found.ended_at = entry.at


def torn_digest(pieces: Sequence[bytes]) -> str:
    """Return the digest of what lies between two entries, as the second one notes it."""
    return hashlib.sha256(b"".join(pieces).rstrip(b"\n")).hexdigest()


def _size(pieces: Sequence[bytes]) -> int:
    return sum(map(len, pieces))
