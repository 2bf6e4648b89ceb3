"""`relayq watch`: a command for each file that appears in a directory."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.joboptions import HeadedCommand, options_but
from relayq.cli.options import client, complete, duration_option
from relayq.cli.placing import means_all
from relayq.cli.submissions import asked_of, command_line, with_jobs

if TYPE_CHECKING:
    from relayq.watching import Watch


_HEADINGS = {
    "Its files": "pattern recursive existing files_in files_out overwrite",
    "How it watches": "settle every once",
    **{name: told for name, told in HeadedCommand.headings.items() if name != "Its files"},
}


class WatchCommand(HeadedCommand):
    """A command that ends its own options at the command for the files, not at the directory."""

    allow_interspersed_args = False
    headings = _HEADINGS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the options that stand after DIR before it."""
        count = self._words(ctx, args)
        tail = args[len(args) - count :]
        if tail[1:] and tail[1].startswith("-") and tail[1] != "--":
            head = args[: len(args) - count]
            others = [*(head[:-1] if head[-1:] == ["--"] else head), *tail[1:]]
            place = len(others) - self._words(ctx, others)
            args = [*others[:place], tail[0], *others[place:]]
        return super().parse_args(ctx, args)

    def _words(self, ctx: click.Context, args: list[str]) -> int:
        """Return how many words at the end are no options."""
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        command = typed.get("command")
        words = len(command) if isinstance(command, tuple) else 0
        return words + isinstance(typed.get("directory"), str)


@click.command("watch", cls=WatchCommand)
@click.option(
    "--glob",
    "pattern",
    default="*",
    metavar="PATTERN",
    help="Only files with such names, '*.mov'; with a / in it, with such paths below DIR.",
)
@click.option("-r", "--recursive", is_flag=True, help="Files in directories below DIR as well.")
@click.option(
    "--existing/--new-only",
    "existing",
    default=True,
    help="Whether files that are there at the start are done too (default: they are, once).",
)
@click.option(
    "--settle",
    type=duration_option,
    default="2s",
    metavar="DURATION",
    help="A file is whole when nobody has changed it for so long (default: 2s).",
)
@click.option(
    "--every",
    type=duration_option,
    default="2s",
    metavar="DURATION",
    help="How often to look (default: 2s).",
)
@click.option("--once", is_flag=True, help="Do what is there, wait for its end, and leave.")
@options_but("unique", "command")
@click.argument("directory", metavar="DIR", type=click.Path(), shell_complete=complete("files"))
@click.argument(
    "command",
    metavar="COMMAND [ARG]...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=complete("files"),
)
@click.pass_context
def watch(
    ctx: click.Context,
    /,
    directory: str,
    command: tuple[str, ...],
    pattern: str,
    recursive: bool,
    existing: bool,
    settle: float,
    every: float,
    once: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    shell: bool,
    **options: Any,
) -> None:
    """Run COMMAND for each file that appears in DIR, when it is whole; until ^C.

    relayq's options come first, then DIR, then COMMAND, in which {} {.} {/} {//} {/.} mean the file
    as in relayq map, in --in and --out too. Each version of a file is done once, however often this
    is started; a file that was changed is done again.
    """
    from relayq.cli import mapping, watched
    from relayq.watching import Watch

    words = command[1:] if command[:1] == ("--",) else command
    cmd = command_line(words, shell=shell)
    asked = asked_of(**options)
    if means_all(asked):
        raise click.UsageError("a file is for one host; on all of them: relayq run --on all")
    asked = mapping.with_files(asked, comes_here=True)
    with client(starts=True, quiet=quiet) as relay:
        given = with_jobs(relay, asked)
        found = Watch(relay.job, directory, cmd, pattern=pattern, is_deep=recursive, **given)
        if dry_run:
            _describe(found, as_json=as_json)
            return
        how = watched.How(settle, every, existing=existing, once=once, quiet=quiet, as_json=as_json)
        ctx.exit(watched.Watching(relay, found, how).go())


def _describe(watch: Watch, *, as_json: bool) -> None:
    """Print the commands for the files that are there, and queue nothing."""
    from relayq.cli import show, watched

    found = watch.scan(watched.tell) or {}
    commands = [(path, watch.command(path, number)) for number, path in enumerate(found, 1)]
    if as_json:
        files = [{"file": watched.text(watch.shown(path)), "cmd": cmd} for path, cmd in commands]
        show.print_json({"dry_run": True, "group": watch.group, "files": files})
        return
    for _, cmd in commands:
        line = cmd if isinstance(cmd, str) else shlex.join(cmd)
        click.echo(os.fsencode(f"{line}\n"), nl=False)
    show.remark(f"nothing was queued (--dry-run): {len(commands)} files")
