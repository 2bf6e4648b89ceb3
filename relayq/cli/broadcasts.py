"""`--on all`: one job for each host that is online, and one table of what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.options import ended
from relayq.cli.texts import span
from relayq.errors import RelayqError
from relayq.model.output import STDERR, STDOUT, only

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.model.jobs import JobRecord

#: What a plan says of one job, and isn't so for each.
_OF_ONE = ("Host", "Queue")
_COLUMNS = ("HOST", "ID", "STATE", "EXIT", "TIME", "LAST LINE")


def run(relay: Relay, asked: Mapping[str, Any], *, detach: bool, quiet: bool, as_json: bool) -> int:
    """Queue a job a host, and unless `detach` wait for all; returns the highest exit code."""
    from relayq.cli import live, show, tables
    from relayq.model.ends import exit_status

    results = relay.job.broadcast(**_asked_of_each(relay, asked))
    if detach:
        _say_ids(results, as_json=as_json)
        return 0
    if not quiet:
        show.remark(f"queued on {', '.join(str(_meant(result)) for result in results)}")
    with live.watching(relay, [result.id for result in results], quiet=quiet):
        records = [ended(result) for result in results]
    if as_json:
        show.print_json({"jobs": [show.as_json(record) for record in records]})
    else:
        rows = [_row(result, record) for result, record in zip(results, records, strict=True)]
        tables.table(_COLUMNS, rows)
    return max(exit_status(record) for record in records)


def describe(relay: Relay, asked: Mapping[str, Any], *, as_json: bool) -> None:
    """Say which hosts would get a job, and what job; nothing is queued."""
    from relayq.cli import details, show

    specs = relay.job.plan_all(**_asked_of_each(relay, asked))
    hosts = [spec.host for spec in specs]
    if as_json:
        shown = {k: v for k, v in show.spec_as_json(specs[0]).items() if k not in {"id", "host"}}
        show.print_json({"dry_run": True, "hosts": hosts, "spec": shown})
        return
    for host in hosts:
        click.echo(f"{host}  a job of its own")
    click.echo("\n".join(one for one in details.plan(specs[0]) if one[:12].strip() not in _OF_ONE))
    show.remark("nothing was queued (--dry-run)")


def _asked_of_each(relay: Relay, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of a broadcast."""
    given = {name: value for name, value in asked.items() if name != "wait_for_host"}
    if "unique" in given:
        raise click.UsageError("--unique means one job, --on all one for each host")
    if "with_job" in given:
        raise click.UsageError("--with means one host, --on all each of them")
    words = [word.strip() for text in given.pop("on") for word in text.split(",")]
    for name in ("after", "after_any"):
        if jobs := given.pop(name, None):
            given[name] = list(relay.job.select(jobs))
    return {**given, "on": [word for word in words if word != "all"]}


def _say_ids(results: Sequence[JobResult], *, as_json: bool) -> None:
    from relayq.cli import show

    if as_json:
        jobs = [{"id": result.id, "host": _meant(result)} for result in results]
        show.print_json({"jobs": jobs})
        return
    for result in results:
        click.echo(f"{result.id}  {_meant(result)}")


def _meant(result: JobResult) -> str | None:
    spec = result.record.spec
    return None if spec is None else spec.host


def _row(result: JobResult, record: JobRecord) -> list[str]:
    code = "-" if record.exit_code is None else str(record.exit_code)
    took = "-" if record.duration is None else span(record.duration)
    where = record.host or str(_meant(result))
    return [where, record.id, record.state.value, code, took, _last_line(result)]


def _last_line(result: JobResult) -> str:
    """Return the end of what a job wrote, of its errors if it wrote nothing else."""
    try:
        frames = list(result.logs())
    except RelayqError as error:
        return f"({error.message})"
    text = only(frames, STDOUT) or only(frames, STDERR)
    lines = text.decode(errors="replace").rstrip().splitlines()
    return lines[-1] if lines else ""
