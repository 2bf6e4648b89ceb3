"""The verbs for jobs: run, submit, ps, show, wait, cancel, retry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli.options import (
    client,
    command_line,
    duration_option,
    ended,
    is_offline,
    job_options,
    json_option,
    quiet_option,
)
from relayq.errors import WaitTimeout
from relayq.model.jobs import FINAL, JobRecord, JobState

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay

_SHOWN = 20
_SHOWN_ALL = 1000
#: How long `cancel` waits for the last process to be gone.
_CANCEL_PATIENCE = 15.0
_UNDER_WAY = (JobState.RUNNING, JobState.LOST, JobState.NEEDS_HUMAN)
_AHEAD = (JobState.QUEUED, JobState.SCHEDULED, JobState.WAITING)

_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)
_UNTOUCHED = {"allow_interspersed_args": False}


def submitted(
    relay: Relay, command: tuple[str, ...], *, shell: bool, follow: bool, **options: Any
) -> JobResult:
    """Queue the command as the options say; those that weren't given are the client's to choose."""
    line = command_line(command, shell=shell)
    given = {name: value for name, value in options.items() if value is not None}
    given["after"] = [relay.job.fetch(id).id for id in options["after"]]
    return relay.job.run(line, follow=follow, **given)


@click.command(context_settings=_UNTOUCHED)
@job_options
@click.pass_context
def run(
    ctx: click.Context, /, command: tuple[str, ...], detach: bool, quiet: bool, **options: Any
) -> None:
    """Run COMMAND and be its terminal: live output, its own exit code.

    One argument is a line for the shell; several are a program with its arguments, which no shell
    sees. relayq's options come first, all that follows is the command's.
    """
    from relayq.cli import output

    command_line(command, shell=False)
    with client(starts=True, quiet=quiet) as relay:
        if detach:
            _submit(relay, command, quiet=quiet, **options)
            return
        code = output.run(
            relay,
            lambda: submitted(relay, command, follow=True, **options),
            host=options["host"],
            quiet=quiet,
        )
    ctx.exit(code)


@click.command(context_settings=_UNTOUCHED)
@json_option
@job_options
def submit(command: tuple[str, ...], detach: bool, quiet: bool, **options: Any) -> None:
    """Queue COMMAND and print its id; its arguments are as for run."""
    command_line(command, shell=False)
    with client(starts=True, quiet=quiet) as relay:
        _submit(relay, command, quiet=quiet, **options)


def _submit(
    relay: Relay,
    command: tuple[str, ...],
    *,
    quiet: bool,
    as_json: bool = False,
    **options: Any,
) -> None:
    from relayq.cli import output, show

    result = submitted(relay, command, follow=False, **options)
    if as_json:
        show.print_json({"id": result.id})
    else:
        click.echo(result.id)
    if not quiet:
        output.note_offline(relay, options["host"])


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help=f"Up to {_SHOWN_ALL} of each sort.")
@click.option("--state", type=click.Choice([s.value for s in JobState]), help="Only these.")
@click.option("--on", "host", metavar="HOST", help="Only this host's.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@json_option
def ps(everything: bool, state: str | None, host: str | None, quiet: bool, as_json: bool) -> None:
    """List jobs: all under way, the next ones, and those that ended recently."""
    from relayq.cli import show

    with client() as relay:
        records = _listed(relay, state, host, _SHOWN_ALL if everything else _SHOWN)
        if as_json:
            show.print_json({"jobs": [show.as_json(record) for record in records]})
        elif quiet:
            click.echo("".join(f"{record.id}\n" for record in records), nl=False)
        else:
            show.table(show.JOB_COLUMNS, show.job_rows(records, clock.now()))
            shown = Counter(record.state for record in records)
            is_all = state is None and host is None
            counts = relay.session().store.jobs.count()
            click.echo(show.job_counts(counts, shown if is_all else counts))


def _listed(relay: Relay, state: str | None, host: str | None, limit: int) -> Sequence[JobRecord]:
    jobs = relay.session().store.jobs
    if state is not None:
        return jobs.list(states=[JobState(state)], host=host, limit=limit)
    return [
        *jobs.list(states=_UNDER_WAY, host=host, limit=_SHOWN_ALL),
        *jobs.list(states=_AHEAD, host=host, limit=limit),
        *jobs.list(states=FINAL, host=host, limit=limit),
    ]


@click.command("show")
@click.argument("id")
@json_option
def show_job(id: str, as_json: bool) -> None:
    """Show all about one job."""
    from relayq.cli import show

    with client() as relay:
        result = relay.job.fetch(id)
        record, outcome = result.record, result.outcome()
        if as_json:
            show.print_json(show.as_json(record))
        else:
            click.echo("\n".join(show.job_details(record, outcome, clock.now())))


@click.command()
@_ids
@click.option(
    "--timeout",
    type=duration_option,
    metavar="DURATION",
    help="Give up after so long, with 75; the jobs go on.",
)
@quiet_option
@json_option
@click.pass_context
def wait(
    ctx: click.Context, ids: tuple[str, ...], timeout: float | None, quiet: bool, as_json: bool
) -> None:
    """Wait until the jobs ended: exits as the one job did, or with 1 if one of several failed."""
    from relayq.cli import show
    from relayq.results import exit_status

    deadline = None if timeout is None else clock.boottime() + timeout
    with client(needs_worker=True, quiet=quiet) as relay:
        results = [relay.job.fetch(id) for id in ids]
        try:
            records = [ended(result, deadline) for result in results]
        except WaitTimeout as error:
            raise _not_ended(results, timeout) from error
        for result, record in zip(results, records, strict=True):
            line = show.verdict(record, result.outcome())
            if line and not quiet:
                show.remark(line)
    if as_json:
        show.print_json({"jobs": [show.as_json(record) for record in records]})
    codes = [exit_status(record) for record in records]
    ctx.exit(codes[0] if len(codes) == 1 else int(any(codes)))


def _not_ended(results: Sequence[JobResult], timeout: float | None) -> WaitTimeout:
    left = [result.id for result in results if not result.ready()]
    verbs = "hasn't ended after {:g} s; it goes" if len(left) == 1 else "haven't ended; they go"
    said = f"{' '.join(left)} {verbs.format(timeout)} on"
    return WaitTimeout(said, hint=f"relayq wait {' '.join(left)}")


@click.command()
@_ids
@click.pass_context
def cancel(ctx: click.Context, ids: tuple[str, ...]) -> None:
    """End jobs for good, with all of their processes, also on a host that is asleep now."""
    with client(needs_worker=True) as relay:
        results = [relay.job.fetch(id) for id in ids]
        asked = [(result, result.state, result.cancel()) for result in results]
        codes = [_tell_cancelled(relay, *one) for one in asked]
    ctx.exit(max(codes, key=[0, 75, 1].index))


def _tell_cancelled(relay: Relay, result: JobResult, before: str, word: str) -> int:
    """Say what the cancel did, when it has done it; returns the exit code for it."""
    if word == before or word not in ("asked", "cancelled"):
        click.echo(f"{result.id} is already {word}")
        return int(word != JobState.CANCELLED)
    if word == "cancelled":
        click.echo(f"{result.id}  cancelled")
        return 0
    host = result.host or "its host"
    if is_offline(relay, host):
        click.echo(f"{result.id}  {host} is offline: the cancel is kept until it is back")
        return 0
    click.echo(f"{result.id}  cancelling on {host} ... ", nl=False)
    asked_at = clock.boottime()
    try:
        record = ended(result, asked_at + _CANCEL_PATIENCE)
    except WaitTimeout:
        click.echo(f"not gone yet; the cancel is kept (relayq wait {result.id})")
        return WaitTimeout.exit_code
    word = "ended" if record.state is JobState.CANCELLED else record.state.value
    click.echo(f"{word} after {clock.boottime() - asked_at:.1f}s")
    return 0


@click.command()
@click.argument("id")
@click.option("--force", is_flag=True, help="Its lost attempt is gone for certain.")
def retry(id: str, force: bool) -> None:
    """Queue an ended job again, as a new attempt."""
    with client(needs_worker=True) as relay:
        click.echo(relay.job.fetch(id).retry(force=force).id)
