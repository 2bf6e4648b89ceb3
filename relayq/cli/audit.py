"""`relayq audit`: what this machine keeps for good of what happened, and whether it is whole."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli.options import duration_option, json_option
from relayq.cli.texts import inert, instant, rfc3339, span
from relayq.errors import RelayqError
from relayq.model.jobs import normal_id

if TYPE_CHECKING:
    from pathlib import Path

    from relayq.ledger import Ledger
    from relayq.model.audit import Entry, Finding, Head

_SHOWN = 100
_BROKEN = 1
#: What of an entry is shown in the line before its other facts, or isn't for people.
_FIRST = frozenset(("n", "at", "what", "job", "uid", "before", "event", "happened_at", "spec"))
_HEAD = re.compile(r"(\d{1,12}):([0-9a-f]{64})")


@click.group()
def audit() -> None:
    """Read what this machine keeps for good, and prove that nobody changed it.

    Each worker notes what it started, how that ended, and what it refused; the broker's machine
    keeps the fleet's events. Each line has the hash of all before it: docs/audit.md.
    """


@audit.command()
@click.option("--fleet", is_flag=True, help="The fleet's events, on the broker's machine.")
@click.option("--job", metavar="ID", help="Only the job with this id, or with this beginning.")
@click.option(
    "--since", type=duration_option, metavar="DURATION", help="Only those of the last 1d, say."
)
@click.option("-n", "count", type=click.IntRange(1), metavar="N", help=f"The last N ({_SHOWN}).")
@json_option
def ls(fleet: bool, job: str | None, since: float | None, count: int | None, as_json: bool) -> None:
    """List the entries of this host's trail, or of the fleet's, the newest last."""
    from relayq.cli import show

    start = None if since is None else clock.now() - since
    wanted = None if job is None else normal_id(job)
    found: deque[Entry] = deque(maxlen=count or (_SHOWN if since is None else None))
    with _reading():
        for entry in _ledgers()["fleet" if fleet else "host"].entries():
            if wanted is not None and not str(entry.facts.get("job", "")).startswith(wanted):
                continue
            if start is None or entry.at >= start:
                found.append(entry)
    if as_json:
        show.print_json({"entries": [_as_shown(entry) for entry in found]})
        return
    for entry in found:
        about = str(entry.facts.get("job", ""))
        click.echo(
            f"{instant(entry.at)}  {entry.what:<9}  {inert(about)}  {_story(entry)}".rstrip()
        )


def _as_shown(entry: Entry) -> dict[str, Any]:
    return {**entry.facts, "at": rfc3339(entry.at), "hash": entry.hash}


def _story(entry: Entry) -> str:
    told = []
    for name, value in entry.facts.items():
        if name not in _FIRST:
            told.append(f"{name}={value if name != 'key' else str(value)[:16]}")
    return inert(" ".join(told))


@audit.command()
@click.option(
    "--head",
    metavar="N:HASH",
    help="That entry must have this hash, as verify said earlier: of this host's trail.",
)
@json_option
def verify(head: str | None, as_json: bool) -> None:
    """Read all of it, and say whether it is whole; exit 1 where it isn't.

    Keep the head that it prints on another machine: with it nobody can write the trail anew.
    """
    from relayq.cli import show

    known = None if head is None else _head(head)
    with _reading():
        found = {
            name: ledger.verify(known if name == "host" else None)
            for name, ledger in _ledgers().items()
            if name == "host" or ledger.files()
        }
    if as_json:
        show.print_json({"trails": {name: _told(one) for name, one in found.items()}})
    else:
        for name, one in found.items():
            click.echo("\n".join(_lines(name, one)))
    if not all(one.is_whole for one in found.values()):
        raise click.exceptions.Exit(_BROKEN)


def _head(text: str) -> Head:
    from relayq.model.audit import Head

    match = _HEAD.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter("expected NUMBER:HASH, as relayq audit verify prints it")
    return Head(int(match[1]), match[2])


def _told(found: Finding) -> dict[str, Any]:
    broken = found.broken
    return {
        "whole": found.is_whole,
        "entries": found.entries,
        "files": found.files,
        "first": found.first,
        "head": f"{found.head.number}:{found.head.hash}",
        "from": None if found.began_at is None else rfc3339(found.began_at),
        "to": None if found.ended_at is None else rfc3339(found.ended_at),
        "cuts": [{**cut._asdict(), "at": rfc3339(cut.at)} for cut in found.cuts],
        "clock_steps_back": found.steps_back,
        "broken": None if broken is None else broken._asdict(),
    }


def _lines(name: str, found: Finding) -> list[str]:
    title = {"host": "this host's jobs", "fleet": "the fleet's events"}[name]
    word = "whole" if found.is_whole else "BROKEN"
    lines = [f"{title}: {word}, {found.entries} entries"]
    if found.began_at is not None and found.ended_at is not None:
        lines[0] += f" from {instant(found.began_at)} to {instant(found.ended_at)}"
    if found.broken is not None:
        at = found.broken
        lines.append(f"  after entry {at.after} ({at.place}): {at.why}")
        lines.append("  what comes after that proves nothing")
    for cut in found.cuts:
        told = _cut(cut._asdict())
        lines.append(f"  cut after entry {cut.after}, {instant(cut.at)}: {told}")
    if found.steps_back:
        times = "once" if found.steps_back == 1 else f"{found.steps_back} times"
        lines.append(f"  the clock was set back {times}, by {span(found.furthest_back)} at most")
    lines.append(f"  head {found.head.number}:{found.head.hash}")
    return lines


def _cut(cut: Mapping[str, Any]) -> str:
    parts = [str(cut["reason"])]
    if cut["lost"]:
        parts.append(f"{cut['lost']} missing")
    if cut["torn"]:
        parts.append(f"{cut['torn']} bytes of a line")
    return inert(", ".join(parts))


def _ledgers() -> dict[str, Ledger]:
    from relayq.ledger import fleet_ledger, host_ledger

    home = _home()
    return {"host": host_ledger(home), "fleet": fleet_ledger(home)}


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"can't read the audit trail: {error.strerror or error}: {error.filename}"
        raise RelayqError(why, hint="as the user whose home of relayq it is") from error


def _home() -> Path:
    from relayq import config

    return config.load().home
