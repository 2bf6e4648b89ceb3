"""When a usage limit resets, from the words that agents have for it.

claude and codex have changed theirs several times, so an instant that an agent gives as a number
comes first, and this is for when there is none. Times of day are the host's, unless a zone stands
beside them, and say nothing of the day: the next one is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

#: A time of day that has just gone by is now and not tomorrow: agents leave out the seconds.
#: More than that would take tomorrow's for now, and ask the account again in vain.
_JUST_NOW = 120.0
#: No limit lasts longer; what seems to is misread.
_LONGEST = 40 * 86_400.0
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_TIME = r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?\s*(?P<half>[ap]\.?m\b\.?)?"
_ZONE = r"(?:\s*\((?P<zone>[A-Za-z0-9_+/-]{1,40})\))?"
_DAY = (
    r"(?:(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? "
    r"(?P<day>\d{1,2})(?:st|nd|rd|th)?(?:,? (?P<year>20\d{2}))?,?(?: at)? )?"
)
_INSTANT = re.compile(
    rf"\b(?:resets?(?: at)?|reset at|try again at)\s+{_DAY}{_TIME}{_ZONE}", re.IGNORECASE
)
_EPOCH = re.compile(r"limit reached\|(\d{10,13})\b")
_DELAY = re.compile(
    r"\b(?:try again in|retry after|reset(?:s)? (?:after|in))\s+"
    r"((?:\d{1,9}(?:\.\d{1,9})?\s*[a-z]{1,7}\.?[\s,]*(?:and )?){1,6})",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]+)", re.IGNORECASE)
_BARE = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_SECONDS = {
    spelling + plural: seconds
    for spellings, seconds in (
        ("ms msec millisecond", 0.001),
        ("s sec second", 1.0),
        ("m min minute", 60.0),
        ("h hr hour", 3600.0),
        ("d day", 86_400.0),
        ("w week", 604_800.0),
    )
    for spelling in spellings.split()
    for plural in ("", "s")
    if spelling + plural != "ms" or seconds < 1
}


def resets_at(text: str, *, now: float, zone: tzinfo | None = None) -> float | None:
    """Return the instant that a message gives, None if it gives none.

    `zone` is that of the host where the agent ran, None for this one's.
    """
    text = text[:4000]
    if epoch := _EPOCH.search(text):
        return sane(float(epoch[1]) / (1000 if len(epoch[1]) == 13 else 1), now)
    if match := _INSTANT.search(text):
        return sane(_next(match, now, _zone(match["zone"]) or zone), now)
    delay = delay_in(text)
    return None if delay is None else sane(now + delay, now)


def delay_in(text: str) -> float | None:
    """Return the seconds of `try again in 2 days 17 hours`, `retry after 3600s`."""
    match = _DELAY.search(text[:4000])
    return _sum(match[1]) if match else None


def duration_in(text: str) -> float | None:
    """Return the seconds that a header holds: `2`, `2m59.56s`, `250ms`."""
    text = text.strip()[:100]
    if _BARE.fullmatch(text):
        return float(text)
    return _sum(text) if re.fullmatch(rf"(?:{_PART.pattern})+", text, re.IGNORECASE) else None


def _sum(text: str) -> float | None:
    parts = [(float(number), _SECONDS.get(unit.lower())) for number, unit in _PART.findall(text)]
    # What follows the duration may be a word of the next sentence.
    known = [number * seconds for number, seconds in parts if seconds is not None]
    return sum(known) if known else None


def _next(match: re.Match[str], now: float, zone: tzinfo | None) -> float | None:
    """Return the first instant from just now on that shows this time in this zone."""
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match["half"][0] in "pP" else 0)
    elif match["minute"] is None:
        return None
    if hour > 23 or minute > 59:
        return None
    for day in _days(match, _local(now, zone).date()):
        instant = _instant(day, hour, minute, zone)
        if match["year"] or instant >= now - _JUST_NOW:
            return instant
    return None


def _days(match: re.Match[str], today: date) -> Iterator[date]:
    """Yield the days that may be meant, in order."""
    if match["month"] is None:
        yield from (today + timedelta(days=ahead) for ahead in (-1, 0, 1, 2))
        return
    month = _MONTHS.index(match["month"].lower()) + 1
    years = [int(match["year"])] if match["year"] else [today.year - 1, today.year, today.year + 1]
    for year in years:
        try:
            yield date(year, month, int(match["day"]))
        except ValueError:
            continue


def _local(now: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(now, UTC).astimezone(zone)


def _instant(day: date, hour: int, minute: int, zone: tzinfo | None) -> float:
    # Of the two instants of an hour that comes twice the later: too early means one more refusal.
    wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone, fold=0)
    return max(wall.timestamp(), _later(wall).timestamp())


def _later(wall: datetime) -> datetime:
    """Return the second of two instants; in the gap of spring, fold 1 would be the earlier one."""
    return wall.replace(fold=1)


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    if name.upper() in {"UTC", "GMT", "Z"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        # An unknown one: agents name the host's own, which the caller has.
        return None


def sane(instant: float | None, now: float) -> float | None:
    """Return an instant, None if no limit could last that long."""
    if instant is None or not now - _LONGEST <= instant <= now + _LONGEST:
        return None
    return instant
