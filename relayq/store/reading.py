"""Records as they are read: one that can't be is named once and left out, and the others are shown.

Whoever may write into Redis can leave anything there, and so can a relayq of another version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from relayq.errors import RelayqError, Unreadable

_T = TypeVar("_T")
#: What it raises to read fields that aren't what they should be.
_UNFIT = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    RelayqError,
)
#: How much of a record there is at most; its spec and its outcome are kept beside it.
_LARGEST = 4 << 20
#: Instants end before the year 5139, long before those that a calendar can't show.
_LAST = 1e11
#: So many records are named before those that were named first may be named again.
_NAMED = 1000
_LONGEST_NAME, _LONGEST_REASON = 64, 120
#: What to type about a record of each sort, when there is nothing better to do about it.
_NEXT = {
    "job": "relayq rm {name}",
    "host": "relayq hosts rm {name}",
    "flow": "relayq rm @flow-{name}",
    "schedule": "relayq schedule rm {name}",
}
_CALLED = {"job": "", "host": "host ", "flow": "run ", "schedule": "schedule "}


class Reader:
    """Reads records; `say` is told of each that can't be read, and what to type about it."""

    def __init__(self) -> None:
        self.say: Callable[[str], None] = _log
        self._named: set[tuple[str, str]] = set()

    def all(self, sort: str, make: Callable[..., _T], rows: Iterable[Sequence[Any]]) -> list[_T]:
        """Return what `make` reads of each row, whose first value is the record's name."""
        rows = list(rows)
        try:
            return [make(*row) for row in rows]
        except _UNFIT:
            return [one for row in rows for one in self._perhaps(sort, make, row)]

    def one(self, sort: str, make: Callable[..., _T], row: Sequence[Any]) -> _T:
        """Return what `make` reads of a row; raises Unreadable."""
        try:
            return make(*row)
        except _UNFIT as error:
            raise _unreadable(sort, row, error) from error

    def _perhaps(self, sort: str, make: Callable[..., _T], row: Sequence[Any]) -> list[_T]:
        try:
            return [self.one(sort, make, row)]
        except Unreadable as error:
            self._name(sort, str(row[0]), error)
            return []

    def _name(self, sort: str, name: str, error: Unreadable) -> None:
        if (sort, name) in self._named:
            return
        if len(self._named) >= _NAMED:
            self._named.clear()
        self._named.add((sort, name))
        self.say(f"{error.message}; try: {error.hint}")


def texts(raw: Any) -> dict[str, str]:
    """Return a record's fields as text; raises ValueError where they aren't, or are too much."""
    if not isinstance(raw, Mapping):
        raise ValueError("it isn't a record")
    if sum(map(len, raw.values())) > _LARGEST:
        raise ValueError("it is too large")
    return {key.decode(): value.decode() for key, value in raw.items()}


def instant(text: str) -> float:
    """Return an instant in Unix seconds; raises ValueError for what no calendar has."""
    at = float(text)
    if not 0 <= at < _LAST:
        raise ValueError(f"{shown(text)} is no instant")
    return at


def shown(text: object, longest: int = _LONGEST_NAME) -> str:
    """Return a text as one short line that can't move a cursor."""
    line = str(text)[:longest]
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


def _unreadable(sort: str, row: Sequence[Any], error: Exception) -> Unreadable:
    name = shown(row[0])
    hint = getattr(error, "hint", None) or _NEXT[sort].format(name=name)
    return Unreadable(
        f"the record of {_CALLED[sort]}{name} can't be read: {reason(error)}", hint=hint
    )


def reason(error: Exception) -> str:
    """Return why something can't be read, of what that raised."""
    if isinstance(error, KeyError):
        return f"it has no {shown(error.args[0])}"
    if isinstance(error, UnicodeDecodeError):
        return "it isn't text"
    if isinstance(error, RelayqError):
        return shown(error.message, _LONGEST_REASON)
    return shown(error, _LONGEST_REASON) or type(error).__name__


def _log(line: str) -> None:
    # Imported only for this: a short command does without.
    import logging

    logging.getLogger(__name__).warning("%s", line)
