"""Hours of the week as people write them: `mon-fri 9-18, sat 10:30-12`."""

from __future__ import annotations

import re
from typing import NamedTuple

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(_DAYS)
_TIME = r"(\d{1,2})(?::(\d\d))?"
_SPAN = re.compile(rf"(?:({_DAY})(?:-({_DAY}))?\s+)?{_TIME}-{_TIME}")
_LAST = 24 * 60


class WeekSpan(NamedTuple):
    """The same hours on some days; an end before the beginning is on the next day.

    `days` count from Monday, 0; `begin` and `end` are minutes of the day.
    """

    days: frozenset[int]
    begin: int
    end: int

    def covers(self, weekday: int, minute: int) -> bool:
        """Whether an instant of the week is within these hours."""
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        is_before_midnight = weekday in self.days and minute >= self.begin
        return is_before_midnight or ((weekday - 1) % 7 in self.days and minute < self.end)


def week_hours(text: str) -> tuple[WeekSpan, ...]:
    """Return the spans that a text means, each day's where it names no days."""
    return tuple(_span(part.strip().lower()) for part in text.split(","))


def hours_text(text: str) -> str:
    """Return the text if it means hours of the week."""
    week_hours(text)
    return text


def _span(text: str) -> WeekSpan:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError("expected hours such as mon-fri 9-18 or sat 10:30-12")
    first, last, *times = match.groups()
    begin, end = _minutes(*times[:2]), _minutes(*times[2:])
    if begin == end:
        raise ValueError("expected hours that end at another time than they begin")
    if first is None:
        return WeekSpan(frozenset(range(7)), begin, end)
    start = _DAYS.index(first)
    count = (_DAYS.index(last or first) - start) % 7 + 1
    return WeekSpan(frozenset((start + i) % 7 for i in range(count)), begin, end)


def _minutes(hour: str, minute: str | None) -> int:
    total = int(hour) * 60 + int(minute or 0)
    if total > _LAST or int(minute or 0) > 59:
        raise ValueError("expected times from 0 to 24")
    return total
