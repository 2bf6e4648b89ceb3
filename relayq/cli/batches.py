"""Several jobs that one command queues, and stays for until all have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq.cli import live, output, show
from relayq.cli.interrupts import Interrupted, held, interruptible
from relayq.cli.options import ended, is_interactive
from relayq.cli.placing import named_host
from relayq.cli.submissions import queued, with_jobs
from relayq.cli.texts import number_of

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.model.jobs import JobRecord

#: How many ids a line names.
_NAMED = 3


def queue_all(
    relay: Relay, kind: str, made: Sequence[dict[str, Any]], *, quiet: bool
) -> Sequence[JobResult]:
    """Queue a job for each of these keywords of the client."""
    if len(made) == 1:
        return [queued(relay, kind, made[0], follow=False, quiet=quiet)]
    return relay.job.submit_many({**with_jobs(relay, one), "kind": kind} for one in made)


def detach(
    relay: Relay, kind: str, made: Sequence[dict[str, Any]], *, quiet: bool, as_json: bool
) -> None:
    """Queue the jobs, and print their ids."""
    results = queue_all(relay, kind, made, quiet=quiet)
    if as_json and len(results) == 1:
        show.print_json({"id": results[0].id, "is_new": results[0].is_new})
    elif as_json:
        show.print_json({"jobs": [{"id": one.id, "is_new": one.is_new} for one in results]})
    else:
        click.echo("".join(f"{one.id}\n" for one in results), nl=False)
    if not quiet and results:
        output.note_absence(relay, _host_of(made[0]))


def run_one(
    relay: Relay,
    kind: str,
    asked: dict[str, Any],
    *,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Queue a job and stream it to its end, as `relayq run` does; returns its exit code."""
    return output.run(
        relay,
        lambda: queued(relay, kind, asked, follow=True, quiet=quiet),
        host=_host_of(asked),
        on_interrupt=on_interrupt,
        quiet=quiet,
        as_json=as_json,
    )


def _host_of(asked: dict[str, Any]) -> str | None:
    return asked.get("host") or named_host(asked)


def run_all(
    relay: Relay,
    kind: str,
    made: Sequence[dict[str, Any]],
    tell: Callable[[JobResult, JobRecord, int], None],
    *,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Queue jobs and watch them with one total progress; returns the exit code: 1 if one failed.

    `tell` is called for each that has ended, with its place among them. As JSON their records and
    results come at the end.
    """
    results: Sequence[JobResult] = []
    records: dict[str, JobRecord] = {}
    with interruptible():
        try:
            relay.session()
            with held():
                results = queue_all(relay, kind, made, quiet=quiet)
            if not quiet:
                ids = " ".join(one.id for one in results[:_NAMED])
                more = " ..." if results[_NAMED:] else ""
                show.remark(f"{number_of(len(results), 'job')} queued: {ids}{more}")
            _watch(relay, results, records, tell, quiet=quiet)
        except Interrupted:
            left = [one for one in results if one.id not in records]
            _leave(left, on_interrupt, quiet=quiet)
            raise
    if as_json:
        shown = [(show.with_remarks(one, records[one.id]), one.outcome()) for one in results]
        jobs = [{**job, "result": outcome and outcome.result} for job, outcome in shown]
        show.print_json({"jobs": jobs})
    return int(any(record.state != "succeeded" for record in records.values()))


def _watch(
    relay: Relay,
    results: Sequence[JobResult],
    records: dict[str, JobRecord],
    tell: Callable[[JobResult, JobRecord, int], None],
    *,
    quiet: bool,
) -> None:
    from relayq.gathering import first_ended

    left = list(results)
    with live.watching(relay, [one.id for one in results], quiet=quiet) as meter:
        while left:
            first = first_ended(left)
            left.remove(first)
            records[first.id] = record = ended(first)
            with meter.aside():
                tell(first, record, results.index(first))


def _leave(left: Sequence[JobResult], on_interrupt: str | None, *, quiet: bool) -> None:
    """Cancel the jobs that have not ended, or let them go on."""
    if not left:
        return
    how = on_interrupt or ("detach" if is_interactive() else "cancel")
    if how == "cancel":
        for one in left:
            one.cancel()
    if not quiet:
        done = "cancelled" if how == "cancel" else "left to go on"
        show.remark(f"{number_of(len(left), 'job')} {done}")
        if how != "cancel":
            ids = " ".join(one.id for one in left)
            show.hint(f"relayq wait {ids}; then relayq get {ids}")
