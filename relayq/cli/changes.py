"""What changes jobs that don't run: move, rm, prune."""

from __future__ import annotations

from typing import Any

import click

from relayq.cli import selection
from relayq.cli.options import client, complete, duration_option, is_interactive, json_option
from relayq.cli.placing import asked_where, constraint_options, shared
from relayq.cli.selection import Chosen
from relayq.cli.texts import age, number_of
from relayq.model.jobs import FINAL, PRIORITIES, JobState
from relayq.parsing import is_host_name

_AHEAD = (JobState.QUEUED, JobState.SCHEDULED, JobState.WAITING)


@click.command()
@click.argument("words", metavar="[JOB] [HOST]", nargs=-1, shell_complete=complete("jobs", "hosts"))
@click.option(
    "--prio",
    "priority",
    type=click.Choice([*PRIORITIES, *map(str, range(1, 11))]),
    metavar="PRIORITY",
    help=f"{', '.join(PRIORITIES)}, or 1 to 10.",
)
@shared(constraint_options)
@selection.filter_option
@selection.all_option
@json_option
@click.pass_context
def move(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    priority: str | None,
    filters: tuple[str, ...],
    everything: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Send jobs that wait to another host, or give them another priority.

    With --filter or --all the only word is the host: a name, several, mac*, @label, or any. What is
    asked of a host (--needs, --on, ...) replaces all that was asked before.
    """
    asked = {name: value for name, value in asked_where(options).items() if value}
    named = 0 if filters or everything else 1
    chosen = Chosen(words[:named], filters, everything)
    hosts = words[named:]
    if len(hosts) > 1:
        raise click.UsageError(f"one job and one host, not {' '.join(words)}")
    if hosts and "on" in asked:
        raise click.UsageError("a host as a word or --on, not both")
    if hosts and not is_host_name(hosts[0]):
        asked["on"], hosts = (hosts[0],), ()
    if not hosts and priority is None and not asked:
        raise click.UsageError("where to? relayq move JOB HOST, or relayq move JOB --prio high")
    host = hosts[0] if hosts else None
    moved: list[dict[str, Any]] = []

    def move_one(result: Any) -> None:
        result.move(host, priority, **asked)
        record = result.record
        moved.append({"id": result.id, "queue": record.queue, "priority": record.priority})
        if not as_json:
            click.echo(f"{result.id}  {record.target}  priority {record.priority}")

    with client(needs_worker=True) as relay:
        code = selection.each(chosen.results(relay, _AHEAD), move_one)
    _print(as_json, moved=moved)
    ctx.exit(code)


@click.command()
@selection.selecting
@selection.yes_option
@json_option
@click.pass_context
def rm(ctx: click.Context, chosen: Chosen, yes: bool, as_json: bool) -> None:
    """Forget ended jobs: their records, results and output."""
    removed: list[str] = []

    def remove_one(result: Any) -> None:
        result.forget()
        removed.append(result.id)
        if not as_json:
            click.echo(result.id)

    with client() as relay:
        results = chosen.results(relay, FINAL)
        selection.confirm(results, chosen, "forget", yes=yes)
        code = selection.each(results, remove_one)
    _print(as_json, removed=removed)
    ctx.exit(code)


@click.command()
@click.option(
    "--older-than",
    type=duration_option,
    metavar="DURATION",
    help="What ended before so long, such as 7d.",
)
@click.option("--keep", type=click.IntRange(0), metavar="N", help="Keep the last N all the same.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(sorted(state.value for state in FINAL)),
    help="Only what ended so.",
)
@selection.yes_option
@json_option
def prune(
    older_than: float | None, keep: int | None, states: tuple[str, ...], yes: bool, as_json: bool
) -> None:
    """Forget jobs that ended long ago, or all but the last N."""
    if older_than is None and keep is None:
        raise click.UsageError("what may go? --older-than 7d, or --keep 100")
    with client() as relay:
        if not yes:
            _ask_to_prune(older_than, keep)
        options: dict[str, Any] = {"older_than": older_than, "keep": keep}
        if states:
            options["states"] = [JobState(state) for state in states]
        count = relay.job.prune(**options)
    if as_json:
        _print(as_json, removed=count)
    else:
        click.echo(f"forgot {number_of(count, 'job')}")


def _ask_to_prune(older_than: float | None, keep: int | None) -> None:
    which = (
        "every ended job" if older_than is None else f"what ended {age(older_than)} ago or earlier"
    )
    but = f" but the last {keep}" if keep else ""
    if not is_interactive():
        raise click.UsageError(f"this would forget {which}{but}; to do so without a question: -y")
    selection.ask(f"Forget {which}{but}?")


def _print(as_json: bool, **value: Any) -> None:
    from relayq.cli import show

    if as_json:
        show.print_json(value)
