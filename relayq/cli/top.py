"""`relayq top`: the fleet and its jobs, drawn again and again."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from relayq import clock
from relayq.cli import fleet
from relayq.cli.options import client, duration_option, json_option
from relayq.cli.screen import drawing, keys
from relayq.cli.status import Fleet
from relayq.model.jobs import JobRecord, JobState

if TYPE_CHECKING:
    from relayq.client import Relay

_UNDER_WAY = (JobState.RUNNING, JobState.LOST, JobState.NEEDS_HUMAN)
_AHEAD = (JobState.QUEUED, JobState.SCHEDULED)
_QUIT = ("q", "Q", "\x1b")
#: Lines that aren't rows: the first one, two headings, two gaps, the counts, the keys.
_AROUND = 7
_NO_TERMINAL = (120, 60)


def _seconds(ctx: click.Context, param: click.Parameter, text: str) -> float:
    return max(0.2, duration_option(text))


@click.command()
@click.option(
    "-d", "--every", callback=_seconds, default="1s", metavar="DURATION", help="How often to look."
)
@json_option
def top(every: float, as_json: bool) -> None:
    """Watch the fleet: hosts, what runs, what comes next; q or ^C ends it.

    Without a terminal it prints one look; with --json a line for each, until ^C.

    Example: relayq top -d 5s
    """
    from relayq.cli import show

    with client() as relay, keys() as key, drawing(not as_json, whole=True) as draw:
        session = relay.session()
        try:
            while True:
                seen = session.patiently(lambda: (Fleet.look(relay), _jobs(relay)), None)
                if seen is not None:
                    if as_json:
                        records = [show.as_json(record) for record in seen[1]]
                        # What runs beside the totals, which `jobs` has.
                        show.print_json({**seen[0].as_json(), "records": records})
                        sys.stdout.flush()
                    elif draw is None:
                        click.echo(screen(*seen, *_NO_TERMINAL))
                        return
                    else:
                        size = shutil.get_terminal_size()
                        draw(screen(*seen, size.columns, size.lines))
                if key(every) in _QUIT:
                    return
        except KeyboardInterrupt:
            return


def _jobs(relay: Relay) -> list[JobRecord]:
    """Return what is under way and what comes next, as many as any screen holds."""
    jobs = relay.session().store.jobs
    return [*jobs.list(states=_UNDER_WAY, limit=100), *jobs.list(states=_AHEAD, limit=50)]


def screen(found: Fleet, records: list[JobRecord], columns: int, lines: int) -> str:
    """Return one look, no wider and no longer than the terminal."""
    from relayq.cli import show, tables

    now = clock.now()
    parts = tables.laid_out(*fleet.host_table(found.hosts, now, found.last_day), columns)
    # Hosts have the upper half of a screen that is too short for all.
    room = max(2, lines - _AROUND)
    upper = (
        parts[: max(room // 2, room - len(records))] if len(parts) + len(records) > room else parts
    )
    jobs = (
        tables.laid_out(show.JOB_COLUMNS, show.job_rows(records, now), columns) if records else []
    )
    lower = jobs[: max(1, room - len(upper)) + 1]
    counts = " . ".join(show.job_counts(found.counts, found.counts))
    head = _headline(found.head(), columns)
    text = [head[:columns], "", *upper, "", *lower, counts[:columns], *found.lines()]
    return "\n".join(text[: max(1, lines - 1)])


def _headline(parts: list[str], columns: int) -> str:
    """Return the first line; where it is too long, without what matters least: the broker."""
    whole = " . ".join(parts)
    return whole if len(whole) <= columns else " . ".join([parts[0], *parts[2:]])
