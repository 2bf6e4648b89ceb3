"""What waits for a person: review shows it, resolve is the person's word on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import selection
from relayq.cli.options import client, complete, json_option
from relayq.cli.selection import Chosen
from relayq.cli.texts import age, inert, number_of, rfc3339, short_ids
from relayq.model.jobs import JobState, Reason
from relayq.model.reviews import VERDICTS

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.reviews import Review

_WAITING = frozenset({JobState.NEEDS_HUMAN})
#: The word for every job that waits, and what a person means who says no more.
_ALL, _DONE = "all", "done"


@click.command()
@click.option(
    "-n", "limit", type=click.IntRange(1), metavar="N", default=100, help="At most so many."
)
@json_option
def review(limit: int, as_json: bool) -> None:
    """Show the jobs that wait for a person, or ask one: what each asks, and what to type."""
    from relayq.cli import show
    from relayq.reviews import waiting

    with client() as relay:
        reviews = waiting(relay.job, limit=limit)
    if as_json:
        show.print_json({"jobs": [_as_json(one) for one in reviews]})
        return
    if not reviews:
        click.echo("nothing waits for a person")
    short = short_ids(one.record.id for one in reviews)
    for one in reviews:
        click.echo("\n".join(_lines(one, short[one.record.id], clock.now())))


def _as_json(one: Review) -> dict[str, Any]:
    from relayq.cli import show

    return {
        **show.as_json(one.record),
        "question": one.question,
        "choices": list(one.choices),
        "last_line": one.last_line,
        "host_seen_at": None if one.host_seen_at is None else rfc3339(one.host_seen_at),
        "host_rebooted": one.rebooted,
        "may_run": one.may_run,
        "wants": "answer" if one.is_asked else "verdict",
        "next": [f"relayq {command}" for command in _commands(one, one.record.id)],
    }


def _lines(one: Review, id: str, now: float) -> list[str]:
    from relayq.cli import show

    record = one.record
    waits = age(now - (record.asked_at or record.finished_at or record.created_at))
    choices = "" if one.is_asked else f"[{'|'.join(one.choices)}]"
    head = (id, record.target, show.kind_of(record), waits, inert(one.question), choices)
    lines = ["  ".join(filter(None, head))]
    if one.is_asked:
        lines += [f"      {n}  {inert(text)}" for n, text in enumerate(one.choices, 1)]
    if record.reason == Reason.LOST:
        lines.append(f"      {_host(one, now)}")
    if one.last_line:
        lines.append(f"      last line: {inert(one.last_line)}")
    if record.spec is not None and record.spec.note:
        lines.append(f"      note: {inert(record.spec.note)}")
    lines.append(f"      {' | '.join(f'relayq {command}' for command in _commands(one, id))}")
    return lines


def _host(one: Review, now: float) -> str:
    """Say what is known of a host that was lost."""
    name = one.record.host or "its host"
    if one.host_seen_at is None:
        return f"{name} isn't known any more"
    rebooted = {True: "yes", False: "no", None: "unknown"}[one.rebooted]
    seen = f"{name} was last heard of {age(now - one.host_seen_at)} ago"
    may_run = "; that attempt may still run there" if one.may_run else ""
    return f"{seen}, host has rebooted since: {rebooted}{may_run}"


def _commands(one: Review, id: str) -> list[str]:
    if one.is_asked:
        choice = [f"answer {id} --choice 1"] if one.choices else []
        force = " --force" if one.may_run else ""
        rest = ["logs -f {}"] if one.record.state.is_waitable else ["logs {}", "resolve {} failed"]
        commands = [*choice, f"answer {id} 'TEXT'"]
        return [f"{text}{force}" for text in commands] + [text.format(id) for text in rest]
    force = " --force" if one.may_run else ""
    commands = [f"resolve {id} {verdict}" for verdict in one.choices]
    again = commands.index(f"resolve {id} pending")
    commands[again] += force
    return [*commands, f"logs {id}"]


@click.command()
@click.argument(
    "words",
    metavar="JOB... [done|pending|failed]",
    nargs=-1,
    shell_complete=complete("jobs"),
)
@click.option("--notes", metavar="TEXT", default="", help="Why; `relayq show` has it then.")
@click.option("--force", is_flag=True, help="With pending: its lost attempt is gone for certain.")
@selection.filter_option
@selection.yes_option
@json_option
@click.pass_context
def resolve(
    ctx: click.Context,
    words: tuple[str, ...],
    notes: str,
    force: bool,
    filters: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Say what becomes of jobs that wait for a person.

    done: it counts as succeeded, and what comes after it goes on. pending: it is queued again.
    failed: it counts as failed. `resolve all` means every job that waits, as done unless it says
    otherwise.
    """
    from relayq.cli import show

    selectors, verdict = _read(words, described=bool(filters))
    state = VERDICTS[verdict].value
    resolved: list[dict[str, str]] = []

    def resolve_one(result: JobResult) -> None:
        result.resolve(verdict, notes=notes, force=force)
        resolved.append({"id": result.id, "state": state})
        if not as_json:
            click.echo(f"{result.id}  {state}")

    with client(needs_worker=verdict == "pending") as relay:
        results = _chosen(relay, selectors, filters)
        described = Chosen((), (), everything=_is_described(selectors, filters))
        selection.confirm(results, described, f"resolve as {verdict}", yes=yes)
        code = selection.each(results, resolve_one)
    if as_json:
        show.print_json({"jobs": resolved})
    elif not results:
        click.echo("nothing waits for a person")
    elif len(resolved) > 1:
        click.echo(f"resolved {number_of(len(resolved), 'job')} as {verdict}")
    ctx.exit(code)


def _read(words: Sequence[str], *, described: bool) -> tuple[tuple[str, ...], str]:
    """Return which jobs were named, and the verdict."""
    selectors, verdict = tuple(words), ""
    if words and words[-1] in VERDICTS:
        selectors, verdict = tuple(words[:-1]), words[-1]
    elif selectors == (_ALL,):
        verdict = _DONE
    if not selectors and not described:
        raise click.UsageError("which job? an id, a name, @group, all, or --filter")
    if not verdict:
        raise click.UsageError(f"as what? {', '.join(VERDICTS)}: relayq resolve {words[0]} done")
    return selectors, verdict


def _is_described(selectors: Collection[str], filters: Collection[str]) -> bool:
    return bool(filters) or any(
        text == _ALL or text.startswith("@") or text.endswith("]") for text in selectors
    )


def _chosen(
    relay: Relay, selectors: tuple[str, ...], filters: tuple[str, ...]
) -> Sequence[JobResult]:
    """Find the jobs; of those that were only described, the ones that wait for a person."""
    everything = _ALL in selectors
    named = () if everything else selectors
    results = Chosen(named, filters, everything).results(relay, _WAITING)
    if not _is_described(selectors, filters):
        return results
    records = relay.session().store.jobs.fetch_many(result.id for result in results)
    waiting = {record.id for record in records if record.state in _WAITING}
    return [result for result in results if result.id in waiting]
