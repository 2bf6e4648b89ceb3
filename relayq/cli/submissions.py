"""How jobs are made: run, submit, and the options that say what, where and when."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from relayq import clock
from relayq.cli import scripts, variables
from relayq.cli.options import (
    client,
    complete,
    duration_option,
    json_option,
    quiet_option,
    size_option,
)
from relayq.cli.placing import asked_where, means_all, named_host, where_options
from relayq.cli.texts import instant_of
from relayq.errors import RelayqError
from relayq.model.jobs import ON_LOST, PRIORITIES
from relayq.model.retries import read_backoff, read_retry_on
from relayq.parsing import memory_size, output_size

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.model.jobs import Spec

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _instant_option(text: str) -> float:
    try:
        return instant_of(text, clock.now())
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}") from error


def _backoff_option(text: str) -> tuple[float, float]:
    try:
        return read_backoff(text)
    except RelayqError as error:
        raise click.BadParameter(error.message) from error


def _retry_on_option(text: str) -> tuple[str, ...]:
    try:
        return read_retry_on(text)
    except RelayqError as error:
        raise click.BadParameter(error.message) from error


#: Where a job runs and how, then when, then what it is called.
_OPTIONS = (
    *where_options,
    click.option("--cwd", metavar="DIR", help="Directory on the host (default: its home)."),
    click.option(
        "-e",
        "--env",
        multiple=True,
        metavar="K[=V]",
        help="Set a variable; K alone takes the value from here.",
    ),
    click.option(
        "--env-file",
        "env_files",
        multiple=True,
        metavar="FILE",
        shell_complete=complete("files"),
        help="Set the variables that a file's lines name, as -e does.",
    ),
    click.option(
        "--timeout",
        type=duration_option,
        metavar="DURATION",
        help="Limit of its run time, such as 90s or 5h.",
    ),
    click.option(
        "--memory",
        type=size_option(memory_size),
        metavar="SIZE",
        help="Limit of its memory, such as 2GB (Linux).",
    ),
    click.option(
        "--processes",
        type=click.IntRange(1),
        metavar="N",
        help="Limit of its processes and threads (Linux).",
    ),
    click.option(
        "--max-output",
        type=size_option(output_size),
        metavar="SIZE",
        help="Limit of all that it writes, such as 1GB.",
    ),
    click.option(
        "--prio",
        "priority",
        type=click.Choice([*PRIORITIES, *map(str, range(1, 11))]),
        metavar="PRIORITY",
        help=f"{', '.join(PRIORITIES)}, or 1 to 10.",
    ),
    click.option("--retries", type=click.IntRange(0), help="Further attempts after a failure."),
    click.option(
        "--backoff",
        type=_backoff_option,
        metavar="FIRST..LONGEST",
        help="The delays before them, such as 1s..60s.",
    ),
    click.option(
        "--retry-on",
        type=_retry_on_option,
        metavar="CAUSE[,CAUSE]",
        help="Which failures: exit, signal, timeout, all, exit:75,111 (default: exit,signal).",
    ),
    click.option(
        "--on-lost", type=click.Choice(ON_LOST), help="What to do when its host vanishes."
    ),
    click.option(
        "--private",
        metavar="LABEL",
        help="Only where, and with the agents that, privacy.LABEL of the configuration names.",
    ),
    click.option("--wait-for-host", is_flag=True, help="Queue it for a host not known yet."),
    click.option(
        "--at",
        "due_at",
        type=_instant_option,
        metavar="TIME",
        help="Not before 22:30, '2026-11-22 08:00' (local) or RFC 3339.",
    ),
    click.option(
        "--in-time",
        "delay",
        type=duration_option,
        metavar="DURATION",
        help="Not before so long from now, such as 30m.",
    ),
    click.option(
        "--after",
        multiple=True,
        metavar="JOB[,JOB]",
        shell_complete=complete("jobs"),
        help="Run after these jobs succeeded.",
    ),
    click.option(
        "--expires",
        type=duration_option,
        metavar="DURATION",
        help="Fail it if no host has taken it by then, such as 12h.",
    ),
    click.option(
        "--unique", metavar="KEY", help="While a job with this key goes on, be that job instead."
    ),
    click.option("--name", metavar="TEXT", help="A name to recognise it by."),
    click.option("--label", "labels", multiple=True, metavar="TEXT", help="A label to filter by."),
    click.option("--meta", multiple=True, metavar="K=V", help="A fact to keep with it."),
    click.option(
        "--group",
        metavar="NAME",
        shell_complete=complete("groups"),
        help="A group: @NAME is all of its jobs.",
    ),
    click.option("--note", metavar="TEXT", help="A remark to keep with it."),
    click.option("-s", "--shell", is_flag=True, help="Join the arguments to one shell line."),
    click.option("--dry-run", is_flag=True, help="Say what would be queued, and queue nothing."),
    quiet_option,
    json_option,
    click.argument(
        "command",
        metavar="COMMAND [ARG]...",
        nargs=-1,
        type=click.UNPROCESSED,
        shell_complete=complete("files"),
    ),
)


def job_options(function: _Function) -> _Function:
    """Add what `run` and `submit` take: the job's options and its command."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


#: What a job's options are about, in the order of the help; the rest is about this command.
_HEADINGS = {
    "Where it runs": "on prefer overflow excluded with_job needs gpu slots strategy private "
    "wait_for_host",
    "How it runs": "cwd env env_files shell tty stdin no_stdin",
    "Its limits": "timeout memory processes max_output",
    "When, and what if": "priority due_at delay expires after unique retries on_lost",
    "What it is called": "name group labels meta note",
}


def options_but(*names: str) -> Callable[[_Function], _Function]:
    """Return what adds a job's options to a command that has other things than these."""

    def holder() -> None:
        """Take the options."""

    for add in _OPTIONS:
        add(holder)
    # click keeps them the last one first.
    kept = [one for one in holder.__click_params__ if one.name not in names]  # type: ignore

    def add_all(function: _Function) -> _Function:
        own = getattr(function, "__click_params__", [])
        function.__click_params__ = [*own, *kept[::-1]]  # type: ignore[attr-defined]
        return function

    return add_all


class HeadedCommand(click.Command):
    """A command with so many options that its help has headings."""

    headings = _HEADINGS

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under headings, the most wanted first."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        rows = {option.name: option.get_help_record(ctx) for option in options}
        for heading, names in self.headings.items():
            with formatter.section(heading):
                formatter.write_dl([row for name in names.split() if (row := rows.pop(name, None))])
        with formatter.section("This command"):
            formatter.write_dl([row for row in rows.values() if row])


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
@click.option("-d", "--detach", is_flag=True, help="Print the id and leave.")
@click.option(
    "--on-interrupt",
    type=click.Choice(["detach", "cancel"]),
    help="What ^C does to the job (default: detach on a terminal, else cancel).",
)
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
    from relayq.cli import output, terminal

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
    if after:
        given["after"] = [one for text in after for one in text.split(",") if one.strip()]
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
    if after := given.pop("after", None):
        given["after"] = list(relay.job.select(after))
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
        output.note_offline(relay, named_host(asked))


#: What can't be checked without the broker, which knows the hosts.
_ABOUT_HOSTS = ("on", "needs", "excluded", "resources", "prefer")


def _describe(asked: dict[str, Any], *, as_json: bool) -> None:
    """Say what would be queued; the broker is asked only about a host or jobs that were named."""
    from relayq.client import Relay

    if means_all(asked):
        from relayq.cli import broadcasts

        with client() as relay:
            broadcasts.describe(relay, asked, as_json=as_json)
        return
    named = {"after", "with_job", *(() if asked.get("wait_for_host") else _ABOUT_HOSTS)}
    with client() if named & asked.keys() else Relay() as relay:
        spec = relay.job.plan("run_command", **with_jobs(relay, asked))
    tell_plan(spec, as_json=as_json)


def tell_plan(spec: Spec, *, as_json: bool) -> None:
    """Say what would be queued."""
    from relayq.cli import show

    if as_json:
        # Each dry run makes up another id.
        shown = {key: value for key, value in show.spec_as_json(spec).items() if key != "id"}
        show.print_json({"dry_run": True, "queue": spec.queue, "spec": shown})
    else:
        click.echo("\n".join(show.plan(spec)))
        click.echo("relayq: nothing was queued (--dry-run)", err=True)
