"""`relayq ps`: the list of jobs, once or for as long as somebody watches."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from relayq import clock
from relayq.cli import templates
from relayq.cli.options import client, complete, json_option
from relayq.cli.screen import drawing
from relayq.cli.selection import filter_option
from relayq.model.jobs import FINAL, JobRecord, JobState

if TYPE_CHECKING:
    from relayq.client import Relay

_SHOWN = 20
_SHOWN_ALL = 1000
_UNDER_WAY = (JobState.RUNNING, JobState.LOST, JobState.NEEDS_HUMAN)
_AHEAD = (JobState.QUEUED, JobState.SCHEDULED, JobState.WAITING)
#: How often `--watch` looks.
_EVERY = 1.0
#: Lines of the terminal that aren't rows: headings, totals, the prompt after the end.
_AROUND = 4

_SORTS: dict[str, Callable[[JobRecord], tuple[object, ...]]] = {
    "age": lambda r: (r.created_at,),
    "state": lambda r: (list(JobState).index(r.state), r.created_at),
    "host": lambda r: (r.target, r.created_at),
    "name": lambda r: ((r.spec.name if r.spec else None) or "", r.created_at),
    "time": lambda r: (r.started_at is None, r.started_at or 0.0),
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which jobs, in which order."""

    state: str | None
    host: str | None
    filters: tuple[str, ...]
    sort: str | None
    limit: int

    @property
    def is_all(self) -> bool:
        return self.state is None and self.host is None and not self.filters

    def records(self, relay: Relay) -> Sequence[JobRecord]:
        found = self._filtered(relay) if self.filters else self._listed(relay)
        return sorted(found, key=_SORTS[self.sort]) if self.sort else found

    def _filtered(self, relay: Relay) -> Sequence[JobRecord]:
        from relayq.model.selectors import read_filters

        filters = read_filters(self.filters)
        filters |= {} if self.state is None else {"state": self.state}
        filters |= {} if self.host is None else {"host": self.host}
        ids = [result.id for result in relay.job.select([], filters=filters)]
        records = relay.session().store.jobs.fetch_many(ids)
        records.sort(key=lambda r: (r.state in FINAL, -(r.finished_at or r.created_at)))
        return records[: max(self.limit, _SHOWN_ALL)]

    def _listed(self, relay: Relay) -> Sequence[JobRecord]:
        jobs = relay.session().store.jobs
        if self.state is not None:
            return jobs.list(states=[JobState(self.state)], host=self.host, limit=self.limit)
        return [
            *jobs.list(states=_UNDER_WAY, host=self.host, limit=_SHOWN_ALL),
            *jobs.list(states=_AHEAD, host=self.host, limit=self.limit),
            *jobs.list(states=FINAL, host=self.host, limit=self.limit),
        ]


def _columns(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    from relayq.cli import show

    if text is None:
        return None
    columns = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    known = (*show.JOB_COLUMNS, *show.MORE_COLUMNS)
    if unknown := set(columns) - set(known):
        raise click.BadParameter(f"no column {sorted(unknown)[0]}; there are {', '.join(known)}")
    return columns or None


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help=f"Up to {_SHOWN_ALL} of each sort.")
@click.option("--state", type=click.Choice([s.value for s in JobState]), help="Only these.")
@click.option(
    "--on", "host", metavar="HOST", shell_complete=complete("hosts"), help="Only this host's."
)
@filter_option
@click.option("--sort", type=click.Choice(sorted(_SORTS)), help="Another order, least first.")
@click.option("--columns", callback=_columns, metavar="A,B", help="These columns, such as ID,NAME.")
@click.option("-w", "--watch", is_flag=True, help="Go on looking until ^C.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@templates.format_option(templates.job_fields)
@json_option
def ps(
    everything: bool,
    state: str | None,
    host: str | None,
    filters: tuple[str, ...],
    sort: str | None,
    columns: tuple[str, ...] | None,
    watch: bool,
    quiet: bool,
    template: templates.Template | None,
    as_json: bool,
) -> None:
    """List jobs: all under way, the next ones, and those that ended recently."""
    from relayq.cli import completion, show

    wanted = _Wanted(state, host, filters, sort, _SHOWN_ALL if everything else _SHOWN)
    if quiet:
        template = template or templates.Template("{{.id}}", templates.job_fields())
    with client() as relay:

        def write(records: Sequence[JobRecord]) -> None:
            if template is not None:
                templates.print_all(template, [templates.of_job(record) for record in records])
            elif as_json:
                show.print_json({"jobs": [show.as_json(record) for record in records]})
            else:
                _print(relay, wanted, records, columns or show.JOB_COLUMNS)

        if not watch:
            found = wanted.records(relay)
            write(found)
            completion.saw(relay, found)
            return
        is_table = template is None and not as_json
        _watch(relay, wanted, write, columns or show.JOB_COLUMNS if is_table else None)


def _print(
    relay: Relay, wanted: _Wanted, records: Sequence[JobRecord], columns: Sequence[str]
) -> None:
    from relayq.cli import show, tables

    if records:
        tables.table(columns, show.job_rows(records, clock.now(), columns))
    counts = relay.session().store.jobs.count()
    if not any(counts.values()):
        click.echo("no jobs yet; try: relayq run 'echo hello'")
    else:
        click.echo("\n".join(tables.joined(_total(wanted, records, counts))))


def _total(
    wanted: _Wanted, records: Sequence[JobRecord], counts: Mapping[JobState, int]
) -> Sequence[str]:
    from relayq.cli import show

    shown = Counter(record.state for record in records)
    return show.job_counts(counts, shown if wanted.is_all else counts)


def _watch(
    relay: Relay,
    wanted: _Wanted,
    write: Callable[[Sequence[JobRecord]], None],
    columns: Sequence[str] | None,
) -> None:
    """Show the jobs again whenever something has changed, until an interrupt.

    On a terminal a table is drawn over the one before; `columns` are None for another answer.
    """
    session = relay.session()
    before: Sequence[JobRecord] | None = None
    try:
        with drawing(columns is not None) as draw:
            while True:
                records = session.patiently(lambda: wanted.records(relay), None)
                if records is not None and draw is not None and columns is not None:
                    draw(_drawn(relay, wanted, records, columns))
                elif records is not None and records != before:
                    write(records)
                before = records if records is not None else before
                sys.stdout.flush()
                clock.sleep(_EVERY)
    except KeyboardInterrupt:
        return


def _drawn(
    relay: Relay, wanted: _Wanted, records: Sequence[JobRecord], columns: Sequence[str]
) -> str:
    from relayq.cli import show, tables

    size = shutil.get_terminal_size()
    room = max(1, size.lines - _AROUND)
    rows = show.job_rows(records, clock.now(), columns)[:room]
    session = relay.session()
    counts = session.patiently(session.store.jobs.count, None)
    total = [] if counts is None else tables.joined(_total(wanted, records[:room], counts))
    # The empty line at the end is room for a remark, such as on a broker that went away.
    return "\n".join([*tables.laid_out(columns, rows, size.columns), *(total or [""]), ""])
