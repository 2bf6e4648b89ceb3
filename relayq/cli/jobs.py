"""The verbs for jobs: show, logs, result, wait, cancel, retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq import clock, families
from relayq.cli import failures, selection, templates
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
    from relayq.model.jobs import JobRecord

#: How many of a job's events `show` tells.
_EVENTS = 20
#: How long `cancel` waits for the last process to be gone.
_CANCEL_PATIENCE = 15.0
_LIVE = frozenset(JobState) - FINAL
_BEGUN = frozenset(JobState) - {JobState.WAITING, JobState.SCHEDULED, JobState.QUEUED}
_WAITABLE = frozenset(state for state in JobState if state.is_waitable)
#: What `retry --all` means: to run again what succeeded or was cancelled takes a word for it.
_TO_RETRY = (JobState.FAILED, JobState.NEEDS_HUMAN)


@click.command("show")
@selection.selecting
@templates.format_option(templates.job_fields)
@json_option
def show_job(chosen: Chosen, template: templates.Template | None, as_json: bool) -> None:
    """Show all about jobs."""
    from relayq.cli import details, show
    from relayq.cli.events import told

    with client() as relay:
        results = chosen.results(relay, frozenset(JobState))
        if template is not None:
            templates.print_all(template, [templates.of_job(result.record) for result in results])
        elif as_json and chosen.is_one:
            show.print_json(show.with_remarks(results[0]))
        elif as_json:
            show.print_json({"jobs": [show.with_remarks(result) for result in results]})
        else:
            for number, result in enumerate(results):
                lines = details.job_details(result.record, result.outcome(), clock.now())
                # Before the last line, which says what to type next.
                lines[-1:-1] = told(result.events(_EVENTS))
                click.echo("\n".join(lines if number == 0 else ["", *lines]))


@click.command()
@selection.selecting
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.option("--exit", "exits", is_flag=True, help="With -f: exit as the job did.")
@quiet_option
@json_option
@click.pass_context
def logs(
    ctx: click.Context,
    /,
    chosen: Chosen,
    follow: bool,
    exits: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Print what jobs write, stdout and stderr each to its own.

    Several come one after the other; with -f all at once, each line after its job's id.
    """
    if exits and not follow:
        raise click.UsageError("--exit needs -f; to exit as an ended job did: relayq wait JOB")
    with client(needs_worker=True, quiet=quiet) as relay:
        from relayq.cli.logs import print_all

        results = chosen.results(relay, frozenset(JobState) if follow else _BEGUN)
        code = print_all(
            relay, results, is_one=chosen.is_one, follow=follow, quiet=quiet, **options
        )
        if exits and code == 0:
            code = _verdicts(results, [ended(result) for result in results], quiet=quiet)
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
@click.option(
    "--first", is_flag=True, help="Until one of them ended: print its id, exit as it did."
)
@quiet_option
@json_option
@click.pass_context
def wait(
    ctx: click.Context,
    chosen: Chosen,
    timeout: float | None,
    first: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Wait until the jobs ended: exits as the one job did, or with 1 if one of several failed."""
    from relayq.cli import live, show

    with client(needs_worker=True, quiet=quiet) as relay:
        asked = chosen.results(relay, _WAITABLE)
        try:
            with live.watching(relay, [result.id for result in asked], quiet=quiet):
                results, records = _ended(asked, timeout, first=first)
        except WaitTimeout as error:
            raise _not_ended(asked, timeout) from error
        code = _verdicts(results, records, quiet=quiet)
        if as_json:
            pairs = zip(results, records, strict=True)
            show.print_json({"jobs": [show.with_remarks(*pair) for pair in pairs]})
    if first and not as_json:
        click.echo("".join(f"{record.id}\n" for record in records), nl=False)
    ctx.exit(code)


def _ended(
    results: Sequence[JobResult], timeout: float | None, *, first: bool
) -> tuple[Sequence[JobResult], Sequence[JobRecord]]:
    """Wait for all jobs, or for the first one; returns those, with their records."""
    from relayq.gathering import first_ended

    if first and results:
        one = first_ended(results, timeout)
        return [one], [one.record]
    deadline = None if timeout is None else clock.boottime() + timeout
    return results, [ended(result, deadline) for result in results]


def _verdicts(results: Sequence[JobResult], records: Sequence[JobRecord], *, quiet: bool) -> int:
    """Say which of these jobs ended without success; returns their exit code."""
    from relayq.cli import show
    from relayq.model.ends import exit_status

    for result, record in zip(results, records, strict=True):
        line = None if quiet else show.verdict(record, result.outcome())
        if line:
            show.remark(line)
            show.hint(show.next_step(record))
        if not quiet:
            show.tell_remarks(result)
    codes = [exit_status(record) for record in records]
    return codes[0] if len(codes) == 1 else int(any(codes))


def _not_ended(results: Sequence[JobResult], timeout: float | None) -> WaitTimeout:
    left = [result.id for result in results if not result.ready()]
    verb, go = ("hasn't", "it goes") if len(left) == 1 else ("haven't", "they go")
    said = f"{' '.join(left)} {verb} ended after {timeout:g} s; {go} on"
    return WaitTimeout(said, hint=f"relayq wait {' '.join(left)}")


@click.command()
@selection.selecting
@click.option("--alone", is_flag=True, help="Let the jobs go on that these have submitted.")
@selection.yes_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, chosen: Chosen, alone: bool, yes: bool, as_json: bool) -> None:
    """End jobs for good, with all of their processes, also on a host that is asleep now.

    The jobs that they have submitted end with them.
    """
    from relayq.cli import show

    with client(needs_worker=True) as relay:
        results = chosen.results(relay, _LIVE)
        selection.confirm(results, chosen, "cancel", yes=yes)
        before = [result.state for result in results]
        words = families.cancel(relay.session().store, [one.id for one in results], alone=alone)
        asked = zip(results, before, words, strict=True)
        told = [_told(relay, *one, silent=as_json) for one in asked]
        if as_json:
            jobs = [{"id": one.id, "state": one.state} for one in results]
            show.print_json({"jobs": jobs})
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
@failures.failed_option
@failures.dead_option
@click.option("--force", is_flag=True, help="Its lost attempt is gone for certain.")
@click.option(
    "--wait", "waits", is_flag=True, help="Follow what runs then, as run does; exit with its code."
)
@selection.yes_option
@quiet_option
@json_option
@click.pass_context
def retry(
    ctx: click.Context,
    chosen: Chosen,
    failed: bool,
    dead: bool,
    force: bool,
    waits: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Queue ended jobs again, each as a new attempt.

    Of jobs that --filter or --all describes those that failed, unless a filter has their state.
    """
    from relayq.cli import show

    with client(needs_worker=True, quiet=quiet) as relay:
        if failed or dead:
            results = failures.to_retry(relay, chosen, dead=dead, yes=yes)
        else:
            results = chosen.results(relay, _TO_RETRY)
            selection.confirm(results, chosen, "retry", yes=yes)
        if waits and len(results) == 1:
            ctx.exit(_retry_and_follow(relay, results[0], force, quiet=quiet, as_json=as_json))
        retried: list[JobResult] = []

        def retry_one(result: JobResult) -> None:
            retried.append(result.retry(force=force, follow=waits))
            if not as_json and not waits:
                click.echo(result.id)

        code = selection.each(results, retry_one)
        if waits:
            code = max(code, _follow_all(relay, retried, quiet=quiet, as_json=as_json))
        elif as_json:
            show.print_json({"jobs": [{"id": result.id} for result in retried]})
    ctx.exit(code)


def _retry_and_follow(
    relay: Relay, result: JobResult, force: bool, *, quiet: bool, as_json: bool
) -> int:
    from relayq.cli import output

    def again() -> JobResult:
        return result.retry(force=force, follow=True)

    spec = result.record.spec
    host = None if spec is None else spec.host
    return output.run(relay, again, host=host, quiet=quiet, as_json=as_json, retries=True)


def _follow_all(relay: Relay, results: Sequence[JobResult], *, quiet: bool, as_json: bool) -> int:
    """Print what these jobs write until all have ended, as JSON their records then."""
    from relayq.cli import show, together

    code = 0
    if not as_json:
        code = together.follow(relay, results, lambda one: one.logs(follow=True), quiet=quiet)
    records = [ended(result) for result in results]
    if as_json:
        show.print_json({"jobs": [show.as_json(record) for record in records]})
    return max(code, _verdicts(results, records, quiet=quiet))
