"""The options that say what a job is, where, when and how it runs, for all that submit one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from relayq import clock
from relayq.cli.options import complete, duration_option, json_option, quiet_option, size_option
from relayq.cli.placing import where_options
from relayq.cli.texts import instant_of
from relayq.errors import RelayqError
from relayq.model.changes import HEAD
from relayq.model.jobs import ON_LOST, PRIORITIES
from relayq.model.retries import read_backoff, read_retry_on
from relayq.parsing import memory_size, output_size

_Function = TypeVar("_Function", bound=Callable[..., Any])


class GitOption(click.Option):
    """`--git` or `--git=REF`: what comes after it is never its value, but the command's."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Have the parser take a value only when it is joined to the option."""
        super().add_to_parser(parser, ctx)
        match = parser._match_long_opt

        def match_joined(opt: str, explicit_value: str | None, state: Any) -> None:
            is_bare = opt in self.opts and explicit_value is None
            match(opt, HEAD if is_bare else explicit_value, state)

        parser._match_long_opt = match_joined

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return its line of the help, as it is typed."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0].replace(" [=", "[="), record[1])


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


detach_option = click.option("-d", "--detach", is_flag=True, help="Print the id and leave.")
interrupt_option = click.option(
    "--on-interrupt",
    type=click.Choice(["detach", "cancel"]),
    help="What ^C does to what was queued (default: detach on a terminal, else cancel).",
)

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
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME",
        help="A secret of the host, as a variable of this name: relayq secret set.",
    ),
    click.option(
        "--git",
        cls=GitOption,
        metavar="[=REF]",
        help="A worktree of its own, of the repository at --cwd, at REF (HEAD).",
    ),
    click.option(
        "--in",
        "files_in",
        multiple=True,
        metavar="FILE[:DEST]",
        shell_complete=complete("files"),
        help="A file that it takes along, or a URL; DEST is its name there.",
    ),
    click.option(
        "--out",
        "files_out",
        multiple=True,
        metavar="PATTERN[:DEST]",
        help="Files that it brings back, such as 'out/*.mp4'; DEST is where to.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace what is where --out puts its files."),
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
    click.option(
        "--grant",
        multiple=True,
        metavar="RULE",
        help="What it may submit itself: none, hosts=A,B, kinds=K, depth=N, at_once=N, most=N.",
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
        "--after-any",
        multiple=True,
        metavar="JOB[,JOB]",
        shell_complete=complete("jobs"),
        help="Run after these jobs ended, however.",
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
    "How it runs": "cwd git env env_files secrets shell tty stdin no_stdin",
    "Its files": "files_in files_out overwrite",
    "Its limits": "timeout memory processes max_output",
    "When, and what if": "priority due_at delay expires after after_any unique retries on_lost",
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


def media_options(function: _Function) -> _Function:
    """Add the options of a command that knows by itself what it runs, and with which files."""
    own = ("shell", "command", "cwd", "git", "env", "env_files", "secrets")
    return options_but(*own, "files_in", "files_out", "overwrite")(function)


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
