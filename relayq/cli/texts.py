"""How people read a time, a size or a job's own text; nothing here knows what a job is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

#: What a table or a line shows of a text is less; a command may be a megabyte long.
_LONGEST = 4000
_SHORTEST_ID = 4
_SPACES = re.compile(r"[\t\n\r\v\f]+")
# CSI and OSC sequences as a whole, other escapes with the character that they take along.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b.?"
)


def inert(text: str, *, longest: int | None = _LONGEST) -> str:
    """Return the text as one line that can't move a cursor: `?` for what isn't printable."""
    line = _SPACES.sub(" ", _ESCAPE.sub("?", text[:longest]))
    return "".join(c if c.isprintable() else "?" for c in line)


def harmless(text: str) -> str:
    """Return the text with its own lines, none of which can move a cursor."""
    return "\n".join(inert(line, longest=None) for line in text.split("\n"))


def age(seconds: float) -> str:
    """Return an age in one unit: `12s`, `4m`, `1h`, `3d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def span(seconds: float) -> str:
    """Return a duration as people say it: `0.2s`, `3m51s`, `2h04m`, `1d02h`."""
    seconds = max(0.0, seconds)
    # Rounding comes first: 59.96 s is a minute.
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{small}"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def limit(seconds: float) -> str:
    """Return a configured duration the way it was typed: `5h`, `90s`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def number_of(count: int, what: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def dollars(amount: float) -> str:
    """Return an amount in USD; of one below ten cents a bit more."""
    return f"${amount:.4f}" if 0 < amount < 0.1 else f"${amount:.2f}"


def instant(at: float) -> str:
    """Return an instant in local time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def rfc3339(at: float) -> str:
    """Return an instant as JSON shows it."""
    shown = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return shown.replace("+00:00", "Z")


def instant_of(text: str, now: float) -> float:
    """Return the instant that `22:30`, `2026-11-22 08:00` or RFC 3339 means, if still to come.

    Without an offset it is local time; an hour alone is its next occurrence.
    """
    is_hour = re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", text)
    today = datetime.fromtimestamp(now)
    try:
        if is_hour:
            hour = f"0{text}" if text[1] == ":" else text
            meant = datetime.fromisoformat(f"{today:%Y-%m-%d} {hour}")
            if meant.timestamp() <= now:
                meant += timedelta(days=1)
        else:
            meant = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "expected 22:30, 2026-11-22 08:00 or 2026-11-22T08:00:00Z"
        raise ValueError(expected) from error
    if meant.timestamp() <= now:
        raise ValueError("expected an instant that is still to come")
    return meant.timestamp()


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return for each id the shortest beginning, of at least four, that no other one has."""
    ordered = sorted(set(ids))
    short = {}
    for i, id in enumerate(ordered):
        beside = [*ordered[max(0, i - 1) : i], *ordered[i + 1 : i + 2]]
        shared = max((_shared(id, other) for other in beside), default=0)
        short[id] = id[: max(_SHORTEST_ID, shared + 1)]
    return short


def _shared(one: str, other: str) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
