"""Who starts and stops Redis on this machine, read from what its tools and logs say.

Two managers of one Redis stop each other's: a restart every minute, each of which costs every
connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from relayq.doctor.findings import Finding, problem, warning

_NAMES = re.compile(r"\b(?:redis|valkey)", re.IGNORECASE)
_UNIT = re.compile(r"^\W*(?P<unit>\S+\.(?:service|timer|path))\s+\S+\s+(?P<state>\S+)")
_ACTS = re.compile(r"\b(?:start|restart|stop|kill|pkill|killall|redis-server|shutdown)\b")
_WATCHES = re.compile(r"watch|monitor|supervis|keep-?alive|while (?:true|:)|autoheal", re.I)
#: Not managers: the server, its client, what looks for it, and us.
_HARMLESS = re.compile(
    r"(?:^|/)(?:redis|valkey)-(?:server|cli|sentinel|benchmark)\b|\bgrep\b|\brelayq\b|"
    r"redis[_-]exporter|^(?:vi|vim|nano|less|tail|ps|journalctl)\b"
)
#: Units that only hold others, or come with each machine.
_PASSIVE = ("@.service", ".slice", ".target")

_TERM = re.compile(r"^\d+:signal-handler \((\d+)\) Received SIGTERM", re.MULTILINE)
_STAMPED = re.compile(r"^\d+:\w (\d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d)\.\d+ \S (.*)$", re.MULTILINE)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_FULL = ("Can't recover from AOF write error", "No space left on device")
_CRASH = ("REDIS BUG REPORT START", "crashed by signal", "=== REDIS BUG")
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Manager:
    """Something that starts or stops Redis: `kind` is unit, timer, cron, launchd or watchdog."""

    kind: str
    name: str
    is_active: bool = True


def managers(answers: Mapping[str, str]) -> list[Manager]:
    """Return what manages Redis, read from the answers of `machine_answers`."""
    found = [
        *_units(answers.get("units", "")),
        *_units(answers.get("user units", "")),
        *_cron(answers.get("crontab", "")),
        *_cron(answers.get("cron files", "")),
        *_launchd(answers.get("launchd", "")),
        *_watchdogs(answers.get("processes", "")),
    ]
    return list(dict.fromkeys(found))


def _units(text: str) -> Iterator[Manager]:
    for line in text.splitlines():
        match = _UNIT.match(line)
        if match is None or not _NAMES.search(match["unit"]):
            continue
        kind = "timer" if match["unit"].endswith(".timer") else "unit"
        yield Manager(kind, match["unit"], match["state"] in ("active", "activating", "reloading"))


def _cron(text: str) -> Iterator[Manager]:
    for line in text.splitlines():
        place, colon, rest = line.partition(": ") if line.startswith("/") else ("", "", line)
        command = rest.strip() if colon or not place else line
        if command.startswith("#") or not _NAMES.search(command):
            continue
        if _ACTS.search(command) or _WATCHES.search(command):
            yield Manager("cron", f"{place}: {command}" if place else command)


def _launchd(text: str) -> Iterator[Manager]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and _NAMES.search(words[2]):
            yield Manager("launchd", words[2], words[0] != "-")


def _watchdogs(text: str) -> Iterator[Manager]:
    for line in text.splitlines():
        pid, _, command = line.strip().partition(" ")
        command = command.strip()
        is_about = _NAMES.search(command) and _WATCHES.search(command)
        if pid.isdecimal() and is_about and not _HARMLESS.search(command):
            yield Manager("watchdog", f"pid {pid}: {command[:100]}")


def failed_units(text: str) -> list[str]:
    """Return relayq's own units that have failed."""
    found = [_UNIT.match(line) for line in text.splitlines()]
    return [m["unit"] for m in found if m and "relayq" in m["unit"] and m["state"] == "failed"]


def examine_managers(here: str, found: Sequence[Manager], *, is_private: bool) -> Iterator[Finding]:
    """Judge whether more than one thing manages Redis here.

    A service of the distribution is no rival of a private broker, which has a port of its own; a
    watchdog that kills by name is.
    """
    active = [one for one in found if one.is_active]
    rivals = [one for one in active if one.kind != "unit"] if is_private else active
    if len(rivals) > 1 or (is_private and rivals):
        named = ", ".join(f"{one.kind} {one.name}" for one in rivals)
        text = f"several things manage Redis here: {named}"
        if is_private:
            yield warning(
                here,
                f"something here starts or stops Redis by itself: {named}",
                "see that it leaves the private broker alone, or remove it",
            )
        else:
            yield problem(here, text, "keep one of them, and disable the others")


def ends_in_log(text: str, now: float) -> dict[str, int]:
    """Count, of the last hour, how Redis ended: `SIGTERM`, `disk full`, `crash`."""
    counts = {"SIGTERM": 0, "disk full": 0, "crash": 0}
    counts["SIGTERM"] = sum(now - int(at) < _HOUR for at in _TERM.findall(text))
    for at, said in _STAMPED.findall(text):
        instant = _instant(at)
        if instant is None or now - instant >= _HOUR:
            continue
        counts["disk full"] += said.startswith(_FULL[0])
        counts["crash"] += any(mark in said for mark in _CRASH)
    return counts


def _instant(text: str) -> float | None:
    """Return the instant of a line of Redis' log, which has this machine's time."""
    day, month, year, hour = text.split()
    if month not in _MONTHS:
        return None
    # Not strptime: it reads the month in the user's language, and Redis writes English.
    number = _MONTHS.index(month) + 1
    return datetime.fromisoformat(f"{year}-{number:02d}-{int(day):02d}T{hour}").timestamp()
