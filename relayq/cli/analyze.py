"""`relayq analyze`: many sessions of an agent read a directory, and one report comes of it."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.groups import Group
from relayq.cli.interrupts import Interrupted, default_way, interruptible
from relayq.cli.joboptions import HeadedCommand, interrupt_option
from relayq.cli.options import (
    client,
    complete,
    duration_option,
    json_option,
    quiet_option,
)

if TYPE_CHECKING:
    from relayq.analyses import Analysis
    from relayq.client import Relay
    from relayq.model.analyses import Plan, Wishes

#: Commands of the group that live elsewhere.
_ELSEWHERE = {
    "ls": "relayq.cli.analyzelists:ls",
    "show": "relayq.cli.analyzelists:show_run",
    "sessions": "relayq.cli.analyzelists:sessions",
    "ask": "relayq.cli.analyzelists:ask",
    "retry": "relayq.cli.analyzelists:retry",
}
WAYS = ("dir", "type", "size", "count", "imports")
#: How often a live table is drawn, and how often the rest is looked at.
_TICK, _TICK_PLAIN = 0.5, 2.0


class _Analyze(Group):
    """A group whose first word may be a directory: then `run` is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the word in that was left out."""
        is_named = bool(args) and (args[0] in self.list_commands(ctx) or args[0] in _HELP)
        if args and not is_named:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of `run`, too: mostly they are what is looked for."""
        self.format_commands(ctx, formatter)
        run.format_options(ctx, formatter)


_HELP = frozenset({"-h", "--help"})


@click.group(cls=_Analyze, elsewhere=_ELSEWHERE, subcommand_metavar="DIR | COMMAND [OPTION]...")
def analyze() -> None:
    """Have an agent read all of a directory, in many sessions at a time, and report.

    The files become shards, each shard a session that only reads, on any host that has the agent.
    A directory that is called like a command: ./ls.

    Example: relayq analyze ./src --workers 5
    """


class _Run(HeadedCommand):
    """`analyze run`, with its many options under headings."""

    headings = {
        "What is read": "ext by first smallest largest fresh",
        "What is asked": "prompt schema agent model",
        "The sessions": "workers max_turns shard_timeout budget in_place on account fallbacks",
    }


@analyze.command(cls=_Run)
@click.option("-w", "--workers", type=click.IntRange(1), default=5, help="Sessions at a time (5).")
@click.option(
    "--by",
    type=click.Choice(WAYS),
    default="dir",
    help="Divide by directory, file type, equal size, equal count, or who imports whom.",
)
@click.option(
    "--ext", multiple=True, metavar="SUFFIX[,SUFFIX]", help="Only such files, as py or .ts."
)
@click.option(
    "--first",
    metavar="REGEX",
    help="What comes first (default: what concerns security); '' for nothing.",
)
@click.option("--min", "smallest", type=click.IntRange(1), default=5, help="Files a shard (5) ...")
@click.option("--max", "largest", type=click.IntRange(1), default=20, help="... to so many (20).")
@click.option("--fresh", is_flag=True, help="Read also what an earlier run has read.")
@click.option(
    "--prompt", metavar="FILE", shell_complete=complete("files"), help="A template with {files}."
)
@click.option(
    "--schema", metavar="FILE", help="Another form of the answers: a JSON Schema with issues."
)
@click.option("--agent", metavar="NAME", shell_complete=complete("agents"), help="The agent.")
@click.option("--model", metavar="NAME", help="Its model.")
@click.option("--budget", metavar="USD", help="Begin no session any more once so much is spent.")
@click.option("--max-turns", type=click.IntRange(1), help="Turns of a session (5).")
@click.option(
    "--shard-timeout",
    type=duration_option,
    default="10m",
    metavar="DURATION",
    help="Limit of a session's run time (10m).",
)
@click.option("--in-place", is_flag=True, help="The hosts have DIR at the same place.")
@click.option(
    "--on",
    multiple=True,
    metavar="HOST[,HOST]",
    shell_complete=complete("hosts"),
    help="Only on these hosts, patterns or @labels.",
)
@click.option("--account", metavar="NAME", help="An account of agents.NAME.accounts.")
@click.option(
    "--fallback",
    "fallbacks",
    multiple=True,
    metavar="AGENT",
    help="Who takes over when there is no allowance left.",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="last",
    metavar="[RUN]",
    help="Go on with a run: what isn't done yet.",
)
@click.option("--dry-run", is_flag=True, help="Show the shards, and queue nothing.")
@click.option("-d", "--detach", is_flag=True, help="Print the run's id and leave.")
@click.option("--stats", is_flag=True, help="Compare with one session after the other.")
@interrupt_option
@quiet_option
@json_option
@click.argument("directory", metavar="DIR", required=False, shell_complete=complete("files"))
@click.pass_context
def run(
    ctx: click.Context,
    /,
    directory: str | None,
    resume: str | None,
    dry_run: bool,
    detach: bool,
    stats: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Have an agent read the source files of DIR, in many sessions at a time, and report.

    It exits with 0 when all was read, with 80 when not: what is parked goes on by itself, and
    --resume has the rest done. Reports and a checkpoint are in DIR/.relayq/analyze/RUN.
    """
    if directory is None and resume is None:
        raise click.UsageError("which directory? relayq analyze DIR")
    fresh = options.pop("fresh")
    budget = _budget(options.pop("budget"))
    if budget is not None and detach:
        raise click.UsageError("--budget is held by who stays and adds up: not with --detach")
    with client(starts=True, quiet=quiet) as relay:
        if resume is not None:
            analysis = _resumed(relay, resume, directory, budget, quiet=quiet)
        else:
            assert directory is not None
            wishes = _wishes(relay, {**options, "budget": budget})
            plan = relay.job.plan_analysis(directory, wishes, fresh=fresh)
            if dry_run:
                _tell_plan(plan, as_json=as_json)
                return
            _warn(relay, plan, quiet=quiet)
            analysis = relay.job.start_analysis(plan)
        if detach:
            leave(analysis, as_json=as_json)
            return
        code = follow(
            relay, analysis, stats=stats, on_interrupt=on_interrupt, quiet=quiet, as_json=as_json
        )
    ctx.exit(code)


def _budget(text: str | None) -> float | None:
    """Return the USD that `5`, `5usd` or `$5` mean."""
    if text is None:
        return None
    try:
        amount = float(text.strip().lower().removeprefix("$").removesuffix("usd"))
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise click.BadParameter("expected USD, such as 5 or 2.50", param_hint="--budget")
    return amount


def _wishes(relay: Relay, options: dict[str, Any]) -> Wishes:
    from relayq.cli.agent import json_table, until_known

    prompt, schema = options.pop("prompt"), options.pop("schema")
    first, on = options.pop("first"), options.pop("on")
    asked: dict[str, Any] = {
        **options,
        "template": "" if prompt is None else _text(prompt),
        "schema": json_table("schema", schema),
        "ext": tuple(one for text in options.pop("ext") for one in text.split(",") if one),
        "on": [one for text in on for one in text.split(",") if one],
        "fallbacks": list(options["fallbacks"]),
    }
    if first is not None:
        asked["first"] = first or None
    wishes = relay.job.asked_of_analysis(**asked)
    named = relay.job.asked_of_agent(wishes.agent, permission="read_only", **wishes.asked)
    until_known(relay, {**named, "prompt": "-"})
    return wishes


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else error
        raise click.BadParameter(f"{path}: {reason}", param_hint="--prompt") from error


def _resumed(
    relay: Relay, text: str, directory: str | None, budget: float | None, *, quiet: bool
) -> Analysis:
    """Return a run whose unfinished shards are to be done."""
    from relayq.cli import show
    from relayq.cli.texts import number_of

    if directory is None and os.path.isdir(text):
        # `--resume DIR`: no run's id is called like that.
        text, directory = "last", text
    analysis = relay.job.analysis(text, path=directory)
    count = analysis.retry()
    harvest = analysis.harvest
    if budget is not None:
        wishes = replace(analysis.plan.wishes, budget=budget)
        harvest.plan = replace(analysis.plan, wishes=wishes)
    if not quiet:
        done = sum(one.standing == "done" for one in harvest.tracks)
        show.remark(f"loaded checkpoint of {analysis.id}: {number_of(done, 'shard')} complete")
        if count:
            show.remark(f"{number_of(count, 'shard')} that came to nothing are done again")
    return analysis


def _tell_plan(plan: Plan, *, as_json: bool) -> None:
    from relayq.cli import analyzeviews, show, tables

    if as_json:
        show.print_json({"plan": analyzeviews.plan_as_json(plan)})
        return
    click.echo(analyzeviews.headline(plan, (), what="plan"))
    if plan.parts:
        tables.table(*analyzeviews.plan_rows(plan))
    for line in analyzeviews.left_out(plan):
        click.echo(line)


def _warn(relay: Relay, plan: Plan, *, quiet: bool) -> None:
    """Say what will make the run slower than was asked, and that another one goes on."""
    from relayq import scattering
    from relayq.cli import analyzeviews, show

    if quiet:
        return
    name = f"{plan.wishes.agent}/{plan.wishes.asked.get('account') or 'default'}"
    [account] = relay.session().store.accounts.fetch([name])
    limit = account.limit
    sessions = min(plan.wishes.workers, len(plan.parts))
    if limit is not None and limit < sessions:
        show.remark(
            f"{name} runs at most {limit} jobs at a time (agents.{plan.wishes.agent}.accounts)"
        )
    for before in scattering.newest(relay, root=plan.root, limit=5):
        if analyzeviews.goes_on(relay, before):
            show.remark(f"the run {before.id} of this directory still goes on")
            show.hint(f"relayq analyze --resume {before.id}")
            break


def leave(analysis: Analysis, *, as_json: bool) -> None:
    """Queue what is still to be queued, and print the run's id."""
    from relayq.cli import show

    analysis.start_waiting()
    if as_json:
        show.print_json({"run": analysis.id, "directory": analysis.directory})
    else:
        click.echo(analysis.id)


def follow(
    relay: Relay,
    analysis: Analysis,
    *,
    stats: bool,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Look after a run until it is over, and print its report; returns the exit code."""
    from relayq.cli import analyzeviews, show
    from relayq.cli.screen import drawing

    views = analyzeviews.Views(relay, analysis, quiet=quiet or as_json)
    views.begin()
    is_drawn = not (quiet or as_json) and sys.stdout.isatty()
    with interruptible():
        try:
            with drawing(True) if is_drawn else nullcontext() as draw:
                pause = _TICK if draw is not None else _TICK_PLAIN
                for over, said in analysis.follow(pause=pause):
                    views.tell(over, said, draw)
        except Interrupted:
            _interrupted(analysis, on_interrupt, quiet=quiet)
            raise
    facts = analysis.facts
    if as_json:
        show.print_json({"analysis": analysis.as_dict()})
    else:
        views.end(facts, stats=stats)
    return facts.exit_code


def _interrupted(analysis: Analysis, on_interrupt: str | None, *, quiet: bool) -> None:
    from relayq.cli import show
    from relayq.cli.texts import number_of

    how = on_interrupt or default_way()
    if how == "cancel":
        count = analysis.cancel()
    if quiet:
        return
    if how == "cancel":
        show.remark(f"{number_of(count, 'session')} cancelled")
    else:
        show.remark("its sessions go on by themselves")
    show.hint(f"relayq analyze --resume {analysis.id}")
