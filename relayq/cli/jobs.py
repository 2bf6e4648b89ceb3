"""The verbs for jobs: show, logs, result, wait, cancel, retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import selection
from relayq.cli.options import (
    client,
    duration_option,
    ended,
    is_offline,
    json_option,
    quiet_option,
)
from relayq.cli.selection import Chosen
from relayq.errors import WaitTimeout
from relayq.model.jobs import FINAL, JobState

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay

#: How long `cancel` waits for the last process to be gone.
_CANCEL_PATIENCE = 15.0
_LIVE = frozenset(JobState) - FINAL
_BEGUN = frozenset(JobState) - {JobState.WAITING, JobState.SCHEDULED, JobState.QUEUED}
_WAITABLE = frozenset(state for state in JobState if state.is_waitable)
#: What `retry --all` means: to run again what succeeded or was cancelled takes a word for it.
_TO_RETRY = (JobState.FAILED, JobState.NEEDS_HUMAN)


@click.command("show")
@selection.selecting
@json_option
def show_job(chosen: Chosen, as_json: bool) -> None:
    """Show all about jobs."""
    from relayq.cli import show

    with client() as relay:
        results = chosen.results(relay, frozenset(JobState))
        if as_json and chosen.is_one:
            show.print_json(show.as_json(results[0].record))
        elif as_json:
            records = relay.session().store.jobs.fetch_many(result.id for result in results)
            show.print_json({"jobs": [show.as_json(record) for record in records]})
        else:
            for number, result in enumerate(results):
                lines = show.job_details(result.record, result.outcome(), clock.now())
                click.echo("\n".join(lines if number == 0 else ["", *lines]))


@click.command()
@selection.selecting
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@quiet_option
@json_option
@click.pass_context
def logs(ctx: click.Context, /, chosen: Chosen, quiet: bool, **options: Any) -> None:
    """Print what jobs write, stdout and stderr each to its own; of several one after the other."""
    with client(needs_worker=True, quiet=quiet) as relay:
        from relayq.cli.logs import print_all

        results = chosen.results(relay, _BEGUN)
        code = print_all(relay, results, quiet=quiet, **options)
    ctx.exit(code)


@click.command()
@selection.selecting
@quiet_option
@json_option
@click.pass_context
def result(ctx: click.Context, chosen: Chosen, quiet: bool, as_json: bool) -> None:
    """Print the results of ended jobs, and nothing else; exits as the job did.

    A command's result is what it wrote to stdout, byte for byte.
    """
    with client(needs_worker=True, quiet=quiet) as relay:
        from relayq.cli.logs import print_results

        results = chosen.results(relay, FINAL)
        code = print_results(results, is_one=chosen.is_one, quiet=quiet, as_json=as_json)
    ctx.exit(code)


@click.command()
@selection.selecting
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
    ctx: click.Context, chosen: Chosen, timeout: float | None, quiet: bool, as_json: bool
) -> None:
    """Wait until the jobs ended: exits as the one job did, or with 1 if one of several failed."""
    from relayq.cli import show
    from relayq.results import exit_status

    deadline = None if timeout is None else clock.boottime() + timeout
    with client(needs_worker=True, quiet=quiet) as relay:
        results = chosen.results(relay, _WAITABLE)
        try:
            records = [ended(result, deadline) for result in results]
        except WaitTimeout as error:
            raise _not_ended(results, timeout) from error
        for result, record in zip(results, records, strict=True):
            line = show.verdict(record, result.outcome())
            if line and not quiet:
                show.remark(line)
                show.hint(show.next_step(record))
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
@selection.selecting
@selection.yes_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, chosen: Chosen, yes: bool, as_json: bool) -> None:
    """End jobs for good, with all of their processes, also on a host that is asleep now."""
    from relayq.cli import show

    with client(needs_worker=True) as relay:
        results = chosen.results(relay, _LIVE)
        selection.confirm(results, chosen, "cancel", yes=yes)
        asked = [(result, result.state, result.cancel()) for result in results]
        told = [_told(relay, *one, silent=as_json) for one in asked]
        if as_json:
            jobs = [{"id": one.id, "state": one.state} for one in results]
            show.print_json({"jobs": jobs})
        elif not results:
            click.echo("nothing to cancel")
    ctx.exit(max(told, key=[0, 75, 1].index, default=0))


def _told(relay: Relay, result: JobResult, before: str, word: str, *, silent: bool) -> int:
    """Say what the cancel did, when it has done it; returns the exit code for it."""
    from relayq.cli import show

    def say(text: str, *, nl: bool = True) -> None:
        if not silent:
            click.echo(text, nl=nl)

    if word == before or word not in ("asked", "cancelled"):
        say(f"{result.id} is already {word}")
        if word == JobState.CANCELLED:
            return 0
        show.hint(f"relayq show {result.id}")
        return 1
    if word == "cancelled":
        say(f"{result.id}  cancelled")
        return 0
    host = result.host or "its host"
    if is_offline(relay, host):
        say(f"{result.id}  {host} is offline: the cancel is kept until it is back")
        return 0
    say(f"{result.id}  cancelling on {host} ... ", nl=False)
    asked_at = clock.boottime()
    try:
        record = ended(result, asked_at + _CANCEL_PATIENCE)
    except WaitTimeout:
        say(f"not gone yet; the cancel is kept (relayq wait {result.id})")
        return WaitTimeout.exit_code
    word = "ended" if record.state is JobState.CANCELLED else record.state.value
    say(f"{word} after {clock.boottime() - asked_at:.1f}s")
    return 0


@click.command()
@selection.selecting
@click.option("--force", is_flag=True, help="Its lost attempt is gone for certain.")
@selection.yes_option
@json_option
@click.pass_context
def retry(ctx: click.Context, chosen: Chosen, force: bool, yes: bool, as_json: bool) -> None:
    """Queue ended jobs again, each as a new attempt.

    Of jobs that --filter or --all describes those that failed, unless a filter has their state.
    """
    from relayq.cli import show

    retried: list[dict[str, Any]] = []

    def retry_one(result: JobResult) -> None:
        result.retry(force=force)
        retried.append({"id": result.id})
        if not as_json:
            click.echo(result.id)

    with client(needs_worker=True) as relay:
        results = chosen.results(relay, _TO_RETRY)
        selection.confirm(results, chosen, "retry", yes=yes)
        code = selection.each(results, retry_one)
    if as_json:
        show.print_json({"jobs": retried})
    ctx.exit(code)
