"""`relayq map`: a command once for each of many inputs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.joboptions import HeadedCommand, detach_option, interrupt_option, options_but
from relayq.cli.options import client, complete
from relayq.cli.placing import means_all
from relayq.cli.submissions import asked_of, command_line, with_jobs

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.mapplans import MapPlan

#: What begins the inputs on the command line: of each source whether it names files, and whether it
#: goes along with the source before it.
_MARKS = {
    ":::": (False, False),
    ":::+": (False, True),
    "::::": (True, False),
    "::::+": (True, True),
}
_HEADINGS = {
    "Its inputs": "arg_files null",
    "Its items": "concurrency halt batch keep_order tag",
    "A map that was": "attach resume_failed",
    **HeadedCommand.headings,
    "How it runs": "cwd git env env_files secrets shell",
}


class MapCommand(HeadedCommand):
    """A command that ends its own options at the command that it maps."""

    allow_interspersed_args = False
    headings = _HEADINGS


@click.command("map", cls=MapCommand)
@click.option(
    "-a",
    "--arg-file",
    "arg_files",
    multiple=True,
    metavar="FILE",
    shell_complete=complete("files"),
    help="Take the lines of a file as inputs, as :::: FILE does.",
)
@click.option("-0", "--null", is_flag=True, help="Inputs from files end with NUL, not with a line.")
@click.option(
    "-j",
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help="At most so many at a time, in the whole fleet (default: as many as have slots).",
)
@click.option(
    "--halt",
    metavar="WHEN",
    help="End the rest early: now,fail=1; soon,fail=10%; now,success=1; never (default).",
)
@click.option(
    "--batch",
    default="auto",
    metavar="N|auto|off",
    help="How many short ones travel in one job (auto: about a second of work).",
)
@click.option("-k", "--keep-order", is_flag=True, help="Print in the order of the inputs.")
@click.option("--tag", is_flag=True, help="Begin each line with its input.")
@click.option(
    "--attach",
    is_flag=False,
    flag_value="",
    metavar="[GROUP]",
    shell_complete=complete("groups"),
    help="Print what the items of a map came to, also those to come (default: the last map).",
)
@click.option(
    "--resume-failed",
    is_flag=False,
    flag_value="",
    metavar="[GROUP]",
    shell_complete=complete("groups"),
    help="Run again what failed in a map, or was cancelled (default: the last map).",
)
@detach_option
@interrupt_option
@options_but("unique", "command")
@click.argument(
    "command",
    metavar="COMMAND [ARG]... ::: INPUT...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=complete("files"),
)
@click.pass_context
def map_command(
    ctx: click.Context,
    /,
    command: tuple[str, ...],
    arg_files: tuple[str, ...],
    null: bool,
    attach: str | None,
    resume_failed: str | None,
    **options: Any,
) -> None:
    """Run COMMAND once for each input, anywhere in the fleet, and print what each wrote.

    Inputs come after :::, as lines of files after ::::, else on standard input. Several sources
    give all combinations; :::+ goes along with the one before it. In COMMAND, --in and --out, {} is
    the input, {.} without its extension, {/} without its directory, {//} its directory, {/.} the
    bare name, {#} its number, {1} {2} the inputs of several sources. COMMAND as one argument is a
    line for the shell, in which inputs are quoted; as several a program with its arguments.
    """
    from relayq.cli import mapping

    how = mapping.How(
        **{name: options.pop(name) for name in ("keep_order", "tag", "quiet", "as_json", "detach")},
        on_interrupt=options.pop("on_interrupt"),
    )
    dry_run = options.pop("dry_run")
    planned = {name: options.pop(name) for name in ("concurrency", "halt", "batch")}
    if attach is not None or resume_failed is not None:
        if command or (attach is not None and resume_failed is not None):
            raise click.UsageError("--attach and --resume-failed take a group, and no command")
        with client(starts=True, quiet=how.quiet) as relay:
            run = relay.job.map_of((attach if resume_failed is None else resume_failed) or None)
            if resume_failed is None:
                ctx.exit(mapping.watch(relay, lambda: run, how, begun_here=False))
            ctx.exit(mapping.resume(relay, run, how))
    words, sources = _parted(command)
    shell = options.pop("shell")
    asked = {**asked_of(**options), **{k: v for k, v in planned.items() if v is not None}}
    if means_all(asked):
        raise click.UsageError("an item runs on one host; on all of them: relayq run --on all")
    asked = mapping.with_files(asked, comes_here=not how.detach)
    cmd = command_line(words, shell=shell)
    rows = _rows(sources, arg_files, by_nul=null)
    if dry_run:
        _describe(cmd, rows, asked, as_json=how.as_json)
        return
    if not rows:
        mapping.tell_nothing(how)
        return
    with client(starts=True, quiet=how.quiet) as relay:
        plan = relay.job.plan_map(cmd, rows, **with_jobs(relay, asked))
        start = _starter(relay, plan)
        if how.detach:
            mapping.detach(start(), how)
            return
        ctx.exit(mapping.watch(relay, start, how, halt=plan.halt))


def _starter(relay: Relay, plan: MapPlan) -> Callable[[], Any]:
    return lambda: relay.job.start_map(plan)


def _parted(words: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, list[str]]]]:
    """Return the command, and each source of inputs with the mark before it."""
    command: list[str] = []
    sources: list[tuple[str, list[str]]] = []
    for word in words:
        if word in _MARKS:
            sources.append((word, []))
        elif sources:
            sources[-1][1].append(word)
        else:
            command.append(word)
    return tuple(command), sources


def _rows(
    sources: Sequence[tuple[str, list[str]]], files: Sequence[str], *, by_nul: bool
) -> list[tuple[str, ...]]:
    """Return the inputs, one value a source in each."""
    from relayq.model.maps import combined

    found = [(_lines(file, by_nul=by_nul), False) for file in files]
    if sources and not found and _MARKS[sources[0][0]][1]:
        mark = sources[0][0]
        raise click.UsageError(f"{mark} goes along with a source before it: begin with :::")
    for mark, words in sources:
        is_files, is_linked = _MARKS[mark]
        if is_files:
            found += [(_lines(file, by_nul=by_nul), is_linked) for file in words]
        else:
            found.append((words, is_linked))
    if not found:
        if sys.stdin.isatty():
            raise click.UsageError("no inputs: COMMAND ::: INPUT..., or a pipe with one a line")
        found.append((_lines("-", by_nul=by_nul), False))
    return combined(found)


def _lines(file: str, *, by_nul: bool) -> list[str]:
    """Return the inputs in a file; - is standard input."""
    from relayq.model.maps import lines_of

    if file == "-":
        raw = sys.stdin.buffer.read()
    else:
        try:
            with open(file, "rb") as opened:
                raw = opened.read()
        except OSError as error:
            raise click.UsageError(f"{file} can't be read: {error.strerror}") from error
    return lines_of(os.fsdecode(raw), by_nul=by_nul)


def _describe(
    cmd: str | list[str], rows: Sequence[tuple[str, ...]], asked: dict[str, Any], *, as_json: bool
) -> None:
    """Print the command of each item, and queue nothing."""
    from relayq.cli import show
    from relayq.client import Relay

    named = {"after", "after_any", "with_job"}
    with client() if named & asked.keys() else Relay() as relay:
        plan = relay.job.plan_map(cmd, rows, **with_jobs(relay, asked))
    if as_json:
        shown = [
            {"item": item.number, "inputs": list(item.values), "cmd": command}
            for item, command in zip(plan.items, plan.commands, strict=True)
        ]
        spec = {key: value for key, value in show.spec_as_json(plan.pattern).items() if key != "id"}
        show.print_json({"dry_run": True, "items": shown, "spec": spec})
        return
    for command in plan.commands:
        line = command if isinstance(command, str) else shlex.join(command)
        click.echo(os.fsencode(f"{line}\n"), nl=False)
    show.remark(f"nothing was queued (--dry-run): {len(plan.items)} items")
