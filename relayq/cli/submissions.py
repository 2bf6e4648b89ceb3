"""How jobs are made: run, submit, and the options that say what, where and when."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from relayq.cli import scripts, variables
from relayq.cli.joboptions import HeadedCommand, detach_option, interrupt_option, job_options
from relayq.cli.options import client, complete
from relayq.cli.placing import asked_where, means_all, named_host
from relayq.errors import RelayqError

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.model.jobs import Spec


class JobCommand(HeadedCommand):
    """A command that ends its own options at the job's command, and reads a script's."""

    allow_interspersed_args = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the options of the script that was named before those that were typed, which win."""
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        command = _words(typed.get("command"))
        is_asked = not ctx.resilient_parsing and typed.get("shell") is not True
        script = scripts.find(command) if is_asked else None
        if script is not None:
            ctx.meta["relayq.script"] = script
            args = [*self._options_of(ctx, script), *args]
        return super().parse_args(ctx, args)

    def _options_of(self, ctx: click.Context, script: scripts.Script) -> list[str]:
        found: list[str] = []
        for number, words in script.options():
            where = f"{script.file}:{number}"
            try:
                parsed, rest, _ = self.make_parser(ctx).parse_args(list(words))
            except click.UsageError as error:
                raise click.UsageError(f"{where}: {error.format_message()}", ctx) from error
            if extra := [*_words(parsed.get("command")), *rest]:
                raise click.UsageError(f"{where}: {extra[0]!r} isn't an option", ctx)
            found += words
        return found


def _words(parsed: Any) -> tuple[str, ...]:
    # What wasn't typed is None in one version of click, a mark of its own in another.
    return parsed if isinstance(parsed, tuple) else ()


@click.command(cls=JobCommand)
@detach_option
@interrupt_option
@click.option(
    "-t", "--tty", is_flag=True, help="Give it a terminal, this one; ~. on a new line detaches."
)
@click.option(
    "--stdin",
    metavar="FILE",
    shell_complete=complete("files"),
    help="What it reads: a file, or - for this command's own input (the default for a pipe).",
)
@click.option("-n", "--no-stdin", is_flag=True, help="It reads nothing, whatever is piped in here.")
@job_options
@click.pass_context
def run(
    ctx: click.Context,
    /,
    command: tuple[str, ...],
    detach: bool,
    on_interrupt: str | None,
    tty: bool,
    stdin: str | None,
    no_stdin: bool,
    quiet: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Run COMMAND and be its terminal: live output, its own exit code.

    One argument is a line for the shell; several are a program with its arguments, which no shell
    sees. relayq's options come first, all that follows is the command's. A single argument that
    is a file here and begins with #! is sent as a script, its #RELAYQ lines are options.
    """
    from relayq.cli import output, terminal, transfers

    asked = _asked(ctx, command, **options)
    source, reads = terminal.source(tty=tty, stdin=stdin, nothing=no_stdin, detached=detach)
    asked |= reads
    if tty:
        asked["env"] = {"TERM": os.environ.get("TERM", "xterm"), **asked.get("env", {})}
    if dry_run:
        _describe(asked, as_json=as_json)
        return
    with client(starts=True, quiet=quiet) as relay:
        if means_all(asked):
            from relayq.cli import broadcasts

            how = {"detach": detach, "quiet": quiet, "as_json": as_json}
            ctx.exit(broadcasts.run(relay, asked, **how))
        if detach:
            _submit(relay, asked, quiet=quiet, as_json=as_json)
            return
        asked = transfers.coming_here(asked)
        code = output.run(
            relay,
            lambda: _queued(relay, asked, follow=True, quiet=quiet),
            host=named_host(asked),
            on_interrupt=on_interrupt,
            quiet=quiet,
            as_json=as_json,
            source=source,
        )
    ctx.exit(code)


@click.command(cls=JobCommand)
@click.option("-d", "--detach", is_flag=True, hidden=True)
@job_options
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    command: tuple[str, ...],
    detach: bool,
    quiet: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Queue COMMAND and print its id; its arguments are as for run."""
    asked = _asked(ctx, command, **options)
    if dry_run:
        _describe(asked, as_json=as_json)
        return
    with client(starts=True, quiet=quiet) as relay:
        if means_all(asked):
            from relayq.cli import broadcasts

            broadcasts.run(relay, asked, detach=True, quiet=quiet, as_json=as_json)
            return
        _submit(relay, asked, quiet=quiet, as_json=as_json)


def _asked(
    ctx: click.Context,
    command: tuple[str, ...],
    *,
    shell: bool,
    **options: Any,
) -> dict[str, Any]:
    """Return the client's keywords for a command that was typed."""
    script: scripts.Script | None = ctx.meta.get("relayq.script")
    if script is not None:
        options["name"] = options["name"] or _name_of(script)
    given = asked_of(**options)
    given["cmd"] = command_line(command, shell=shell) if script is None else script.command
    return given


def asked_of(
    *,
    env: tuple[str, ...],
    env_files: tuple[str, ...],
    meta: tuple[str, ...],
    after: tuple[str, ...],
    after_any: tuple[str, ...],
    **options: Any,
) -> dict[str, Any]:
    """Return the client's keywords for what was typed; what wasn't given is its to choose."""
    options = asked_where(options)
    if options["due_at"] is not None and options["delay"] is not None:
        raise click.UsageError("--at and --in-time exclude each other")
    given = {name: value for name, value in options.items() if value not in (None, (), False)}
    if variables_given := variables.read(env_files, env):
        given["env"] = variables_given
    if meta:
        given["meta"] = variables.pairs(meta, "--meta")
    for name, jobs in (("after", after), ("after_any", after_any)):
        if jobs:
            given[name] = [one for text in jobs for one in text.split(",") if one.strip()]
    return given


def _name_of(script: scripts.Script) -> str | None:
    """Return the file's name, unless as a job's name it would select other jobs."""
    from relayq.model.selectors import check_name

    try:
        return check_name(script.name)
    except RelayqError:
        return None


def command_line(command: tuple[str, ...], *, shell: bool) -> str | list[str]:
    """Return a shell line for one argument or on demand, else the program with its arguments."""
    if not command or not command[0].strip():
        raise click.UsageError("the command is empty; try: relayq run 'echo hello'")
    return " ".join(command) if shell or len(command) == 1 else list(command)


def _queued(relay: Relay, asked: dict[str, Any], *, follow: bool, quiet: bool) -> JobResult:
    return queued(relay, "run_command", asked, follow=follow, quiet=quiet)


def with_jobs(relay: Relay, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords with the jobs that were named found."""
    given = dict(asked)
    for name in ("after", "after_any"):
        if jobs := given.pop(name, None):
            given[name] = list(relay.job.select(jobs))
    if beside := given.pop("with_job", None):
        given["with_job"] = relay.job.select([beside])[0]
    return given


def queued(
    relay: Relay, kind: str, asked: dict[str, Any], *, follow: bool, quiet: bool
) -> JobResult:
    """Queue a job as it was asked for, and say so if it is one that goes on already."""
    from relayq.cli import completion

    result = relay.job.submit(kind, follow=follow, **with_jobs(relay, asked))
    if result.is_new:
        completion.queued(relay, result.id, asked)
    elif not quiet:
        click.echo(
            f"relayq: {result.id} goes on under the key {asked['unique']!r}; nothing was queued",
            err=True,
        )
    return result


def _submit(relay: Relay, asked: dict[str, Any], *, quiet: bool, as_json: bool) -> None:
    from relayq.cli import output, show

    result = _queued(relay, asked, follow=False, quiet=quiet)
    if as_json:
        show.print_json({"id": result.id, "is_new": result.is_new})
    else:
        click.echo(result.id)
    if not quiet:
        output.note_absence(relay, named_host(asked))


#: What can't be checked without the broker, which knows the hosts.
ABOUT_HOSTS = ("on", "needs", "excluded", "resources", "prefer")


def _describe(asked: dict[str, Any], *, as_json: bool) -> None:
    """Say what would be queued; the broker is asked only about a host or jobs that were named."""
    from relayq.client import Relay

    if means_all(asked):
        from relayq.cli import broadcasts

        with client() as relay:
            broadcasts.describe(relay, asked, as_json=as_json)
        return
    named = {
        "after",
        "after_any",
        "with_job",
        *(() if asked.get("wait_for_host") else ABOUT_HOSTS),
    }
    with client() if named & asked.keys() else Relay() as relay:
        spec = relay.job.plan("run_command", **with_jobs(relay, asked))
    tell_plan(spec, as_json=as_json)


def tell_plan(spec: Spec, *, as_json: bool) -> None:
    """Say what would be queued."""
    from relayq.cli import details, show

    if as_json:
        # Each dry run makes up another id.
        shown = {key: value for key, value in show.spec_as_json(spec).items() if key != "id"}
        show.print_json({"dry_run": True, "queue": spec.queue, "spec": shown})
    else:
        click.echo("\n".join(details.plan(spec)))
        click.echo("relayq: nothing was queued (--dry-run)", err=True)
