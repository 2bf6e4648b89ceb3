"""Failed jobs: the list with what to do, and which of them a bulk retry means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import selection
from relayq.cli.options import client, duration_option, json_option
from relayq.cli.selection import Chosen
from relayq.cli.texts import age, limit, short_ids
from relayq.model.jobs import JobRecord, JobState, Reason

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.reviews import Failure

_COLUMNS = ("ID", "HOST", "WHEN", "WHY", "LAST LINE", "DO")
_FAILED = frozenset({JobState.FAILED})

failed_option = click.option(
    "--failed", is_flag=True, help="Those of them that failed; of all jobs if none is named."
)
dead_option = click.option(
    "--dead", is_flag=True, help="Likewise those that their hosts failed, and not their commands."
)


@click.command()
@click.option(
    "--since", type=duration_option, metavar="DURATION", help="What failed in the last 2h, say."
)
@click.option("--dead", is_flag=True, help="Only jobs whose hosts were lost, too often.")
@click.option(
    "-n", "count", type=click.IntRange(1), metavar="N", default=50, help="At most so many."
)
@json_option
def failures(since: float | None, dead: bool, count: int, as_json: bool) -> None:
    """Show failed jobs, the newest first: why, the end of their output, what to do."""
    from relayq.cli import show, tables
    from relayq.reviews import failures as found

    now = clock.now()
    with client() as relay:
        failed = found(
            relay.job, since=None if since is None else now - since, dead=dead, limit=count
        )
    if as_json:
        show.print_json({"jobs": [_as_json(one) for one in failed]})
    elif failed:
        tables.table(_COLUMNS, _rows(failed, now))
    else:
        click.echo("no job has failed" + (f" in the last {limit(since)}" if since else ""))


def _as_json(one: Failure) -> dict[str, Any]:
    from relayq.cli import show

    return {
        **show.as_json(one.record),
        "why": one.why,
        "last_line": one.last_line,
        "is_dead": one.is_dead,
        "next": f"relayq {one.advice}",
    }


def _rows(failed: Sequence[Failure], now: float) -> list[list[str]]:
    short = short_ids(one.record.id for one in failed)
    return [
        [
            short[one.record.id],
            one.record.host or "-",
            age(now - (one.record.finished_at or now)),
            _why(one),
            one.last_line or "-",
            one.advice.replace(one.record.id, short[one.record.id]),
        ]
        for one in failed
    ]


def _why(one: Failure) -> str:
    record: JobRecord = one.record
    if record.reason == Reason.LOST:
        return f"lost x{record.losses} (dead)"
    if record.reason == Reason.TIMEOUT and record.spec is not None and record.spec.timeout:
        return f"timeout {limit(record.spec.timeout)}"
    return f"{one.why} (dead)" if one.is_dead else one.why


def to_retry(relay: Relay, chosen: Chosen, *, dead: bool, yes: bool) -> Sequence[JobResult]:
    """Find the failed jobs among those that were chosen, or among all, and ask about several."""
    from relayq.reviews import only_failed

    if not chosen.selectors and not chosen.is_bulk:
        chosen = Chosen((), (), everything=True)
    results = only_failed(relay.job, chosen.results(relay, _FAILED), dead=dead)
    described = Chosen((), (), everything=True)
    selection.confirm(results, described, "retry", yes=yes)
    return results
