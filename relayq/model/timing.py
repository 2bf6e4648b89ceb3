"""When something recurs: cron's five fields or plain words, in a time zone, as instants.

Instants are Unix seconds. Nothing here reads a clock, so every rule can be tried over a change of
the clocks or a week's sleep. Cron and its behaviour at such a change are those of Debian's cron, by
the library cronsim: what falls into the hour that is left out runs right after it, what falls into
the one that comes twice runs once, but for `*` in the hours or minutes.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from math import inf
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from relayq.errors import RelayqError
from relayq.parsing import duration

#: What is done about instants that nobody was there for: nothing, one job for all, one job each.
CATCH_UPS = ("skip", "once", "all")
#: How late an instant is still in time, where nobody says; where it is made up for, however late.
GRACE = {"skip": 60.0, "once": inf, "all": inf}
#: How many instants of the past are made up for at most, the newest.
MOST_MISSED = 100
#: How many of the past are counted one by one: a year of minutes would take seconds.
MOST_COUNTED = 10_000
#: Anything more frequent is no schedule, but a loop.
SHORTEST = 1.0

_DAYS = "sunday monday tuesday wednesday thursday friday saturday".split()
_NICKNAMES = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "midnight": "0 0 * * *",
    "nightly": "0 2 * * *",
    "weekly": "0 0 * * 0",
    "monthly": "0 0 1 * *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
_UNITS = {"second": "s", "minute": "m", "hour": "h", "day": "d", "week": "w"}
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*(am|pm)?")
_EXAMPLES = "'0 3 * * *', 'every 20m', 'daily at 3:00', 'weekdays at 9:30', 'monthly on 1 at 4:00'"


@dataclass(frozen=True, slots=True)
class Timing:
    """When it recurs: by `cron` in a `zone`, or `every` so many seconds from `since` on."""

    text: str
    zone: str = "UTC"
    cron: str = ""
    every: float = 0.0
    since: float = 0.0

    def after(self, instant: float) -> Iterator[float]:
        """Yield the instants after this one, for ever; none if there is none within 50 years."""
        if self.every:
            nth = int((instant - self.since) // self.every) + 1
            while True:
                # In whole milliseconds: the last bits of a sum are lost when it is stored, and an
                # instant must not follow itself.
                at = round(self.since + max(1, nth) * self.every, 3)
                if at > instant:
                    yield at
                nth += 1
        from cronsim import CronSim

        begin = datetime.fromtimestamp(int(instant), UTC).astimezone(_zone(self.zone))
        for found in CronSim(self.cron, begin):
            if (at := found.timestamp()) > instant:
                yield at

    def next_after(self, instant: float) -> float | None:
        """Return the first instant after this one, None when there is none any more."""
        return next(self.after(instant), None)


def read(text: str, *, zone: str = "UTC", since: float = 0.0) -> Timing:
    """Return what cron's fields or plain words mean; anything else is an error with examples."""
    words = " ".join(text.lower().split())
    _zone(zone)
    if (every := _interval(words)) is not None:
        if every < SHORTEST:
            raise RelayqError(f"{text!r} is more often than every {SHORTEST:.0f} s")
        return Timing(text, zone, every=every, since=since)
    cron = _cron(words)
    if cron is None:
        raise RelayqError(f"what does {text!r} mean?", hint=f"for instance {_EXAMPLES}")
    timing = Timing(text, zone, cron=cron)
    _check(timing)
    return timing


def _check(timing: Timing) -> None:
    from cronsim import CronSimError

    try:
        found = timing.next_after(0.0)
    except CronSimError as error:
        said = str(error).replace("Bad", "wrong").lower()
        raise RelayqError(
            f"{timing.text!r} isn't cron's minute, hour, day, month, weekday: {said}",
            hint=f"for instance {_EXAMPLES}",
        ) from error
    if found is None:
        raise RelayqError(f"{timing.text!r} never comes")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RelayqError(
            f"no such time zone: {name!r}",
            hint="as in Europe/Berlin; ls /usr/share/zoneinfo (package tzdata)",
        ) from error


def _interval(words: str) -> float | None:
    """Return the seconds of `every 20m` and `every 3 hours`, None for anything else."""
    match = re.fullmatch(r"every (?:(\d+) )?(second|minute|hour|day|week)s?", words)
    if match is not None and (match[1] or match[2] != "day"):
        count = match[1] or "1"
        return None if match[2] == "week" and not match[1] else duration(count + _UNITS[match[2]])
    match = re.fullmatch(r"every (\d[\w.]*)", words)
    if match is None:
        return None
    try:
        return duration(match[1])
    except ValueError:
        return None


def _cron(words: str) -> str | None:
    """Return cron's fields for words, None for what they don't say."""
    words = words.removeprefix("@")
    if words in _NICKNAMES:
        return _NICKNAMES[words]
    if len(words.split()) == 5 and re.fullmatch(r"[-\d*/,#a-z ]+", words) and " at " not in words:
        return words
    days, at, time = words.partition(" at ")
    clock = _time(time) if at else (0, 0)
    if clock is None:
        return None
    hour, minute = clock
    days = days.removeprefix("every ").strip()
    if days in ("day", "daily", "night", "nightly"):
        return f"{minute} {hour} * * *"
    if match := re.fullmatch(r"(?:month|monthly)(?: on (?:the )?(\d{1,2})(?:st|nd|rd|th)?)?", days):
        return f"{minute} {hour} {match[1] or 1} * *"
    if match := re.fullmatch(r"(?:week|weekly)(?: on (.+))?", days):
        days = match[1] or "sunday"
    weekdays = _weekdays(days)
    return None if weekdays is None else f"{minute} {hour} * * {weekdays}"


def _time(text: str) -> tuple[int, int] | None:
    """Return hour and minute of `3`, `3:30`, `3pm`, `noon`; None for what is no time of day."""
    text = {"noon": "12:00", "midnight": "0:00"}.get(text.strip(), text.strip())
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minute = int(match[1]), int(match[2] or 0)
    if match[3]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match[3] == "pm" else 0)
    return (hour, minute) if hour < 24 and minute < 60 else None


def _weekdays(text: str) -> str | None:
    """Return cron's numbers for `weekdays`, `mon-fri`, `monday and thursday`."""
    if text in ("weekday", "weekdays", "workday", "workdays"):
        return "1-5"
    if text in ("weekend", "weekends"):
        return "0,6"
    found = []
    for part in re.split(r"\s*(?:,|\band\b)\s*", text):
        ends = [_weekday(one) for one in part.split("-")]
        if not ends or None in ends or len(ends) > 2:
            return None
        first, last = ends[0], ends[-1]
        assert first is not None
        assert last is not None
        found += [str((first + nth) % 7) for nth in range((last - first) % 7 + 1)]
    return ",".join(dict.fromkeys(found)) or None


def _weekday(word: str) -> int | None:
    word = word.strip()
    fitting = [n for n, day in enumerate(_DAYS) if word in (day, f"{day}s") or word == day[:3]]
    return fitting[0] if fitting else None


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done now: the instants for which a job is due, and the next one to come.

    `missed` counts those that nothing is done about, `seen` is the newest that has passed.
    """

    due: Sequence[float]
    missed: int
    next_at: float | None
    seen: float | None = None


def turn(
    timing: Timing,
    *,
    next_at: float,
    now: float,
    catch_up: str,
    grace: float,
    until: float = inf,
    delay: Callable[[float], float] = lambda instant: 0.0,
) -> Turn:
    """Decide what the instants from `next_at` until `now` come to; none counts after `until`.

    What is more than `grace` seconds late is missed. Of the rest `all` makes up for the newest
    MOST_MISSED, the others for the newest one. Each instant comes `delay` seconds after itself.
    """
    passed: deque[float] = deque(maxlen=MOST_MISSED)
    count, upcoming = 0, None
    instants: Iterator[float] = chain([next_at], timing.after(next_at))
    while (at := next(instants, None)) is not None:
        if at > until:
            break
        if at + delay(at) > now:
            upcoming = at
            break
        passed.append(at)
        count += 1
        if count == MOST_COUNTED:
            length = (at - next_at) / count
            instants = timing.after(max(at, now - 3 * MOST_MISSED * length))
    in_time = [at for at in passed if at + delay(at) >= now - grace]
    due = in_time if catch_up == "all" else in_time[-1:]
    return Turn(due, count - len(due), upcoming, passed[-1] if passed else None)


def spread(id: str, instant: float, jitter: float) -> float:
    """Return how many seconds after its instant a job begins: the same for whoever asks."""
    part = zlib.crc32(f"{id} {instant:.0f}".encode()) / 2**32
    return part * jitter


def preview(timing: Timing, instant: float, count: int) -> list[float]:
    """Return the next instants, for people to see whether that is what they meant."""
    return list(islice(timing.after(instant), count))
