"""`relayq schedule`: jobs that come again and again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import agent as agents
from relayq.cli.flowfiles import input_option
from relayq.cli.groups import Group
from relayq.cli.joboptions import HeadedCommand, options_but
from relayq.cli.options import client, complete, duration_option
from relayq.cli.submissions import ABOUT_HOSTS, asked_of, command_line, tell_plan
from relayq.cli.texts import instant_of
from relayq.model.timing import CATCH_UPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relayq.client import Relay

#: What a job that recurs can't have, and what means something else here.
_UNFIT = "after after_any due_at delay with_job unique group command".split()
#: Options of an agent's job.
_OF_AGENTS = "model permission tools schema mcp max_turns budget args account fallbacks".split()
_ELSEWHERE = {
    "ls": "relayq.cli.schedulelists:ls",
    "show": "relayq.cli.schedulelists:show_schedule",
    "run": "relayq.cli.schedulelists:run",
    "pause": "relayq.cli.schedulelists:pause",
    "resume": "relayq.cli.schedulelists:resume",
    "rm": "relayq.cli.schedulelists:rm",
}


@click.group(cls=Group, elsewhere=_ELSEWHERE)
def schedule() -> None:
    """Have jobs come again and again: at times of day, or every so often.

    The workers submit them when it is time, whichever of them is there; nothing else has to run.
    """


class _Add(HeadedCommand):
    """`schedule add`: its options come anywhere before the command, which keeps its own."""

    allow_interspersed_args = False
    headings = {
        "When it comes": "zone catch_up grace overlap jitter until paused replace",
        "What it is": "agent_name file inputs kind payload_fields",
        "The agent": "model permission tools schema mcp max_turns budget args account fallbacks",
        "Where it runs": "on prefer overflow excluded needs gpu slots strategy private "
        "wait_for_host",
        "How it runs": "cwd git env env_files secrets shell files_in files_out overwrite",
        "Its limits": "timeout memory processes max_output priority expires retries backoff "
        "retry_on on_lost grant",
        "What its jobs are called": "name labels meta note",
    }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the options that stand between NAME, WHEN and COMMAND before all three."""
        options: list[str] = []
        words: list[str] = []
        left = list(args)
        for _ in ("name", "when", "command"):
            parsed, _, _ = self.make_parser(ctx).parse_args(list(left))
            count = sum(isinstance(parsed.get(one), str) for one in ("schedule_name", "when"))
            command = parsed.get("command")
            count += len(command) if isinstance(command, tuple) else 0
            head, left = left[: len(left) - count], left[len(left) - count :]
            options += head[:-1] if head[-1:] == ["--"] else head
            if len(words) < 2:
                words += left[:1]
                left = left[1:]
        return super().parse_args(ctx, [*options, "--", *words, *left])


def _options_of_agents(command: Any) -> Any:
    """Add the options that `agent run` has for the agent."""
    kept = [one for one in agents.run.params if one.name in _OF_AGENTS]
    own = getattr(command, "__click_params__", [])
    command.__click_params__ = [*own, *kept[::-1]]
    return command


@schedule.command("add", cls=_Add)
@click.option(
    "--tz",
    "zone",
    metavar="ZONE",
    help="The time zone of WHEN, such as Europe/Berlin (default: this machine's).",
)
@click.option(
    "--catch-up",
    type=click.Choice(CATCH_UPS),
    default="once",
    help="What is made up for after a time without a worker: nothing, the last one, or each.",
)
@click.option(
    "--grace",
    type=duration_option,
    metavar="DURATION",
    help="What is later than that is missed (default: 60s with skip, else never).",
)
@click.option(
    "--overlap",
    type=click.Choice(["skip", "queue", "replace", "allow"]),
    help="While the run before goes on: leave it out, wait, replace that, or run beside it.",
)
@click.option(
    "--jitter",
    type=duration_option,
    metavar="DURATION",
    help="Begin up to so much later, each time differently: not all at 3:00.",
)
@click.option("--until", metavar="TIME", help="No run after '2026-12-24 18:00' (local).")
@click.option("--paused", is_flag=True, help="Only keep it: relayq schedule resume NAME.")
@click.option("--replace", is_flag=True, help="Change the one that there is.")
@click.option(
    "--agent",
    "agent_name",
    metavar="NAME",
    shell_complete=complete("agents"),
    help="The command is a prompt for this agent.",
)
@click.option(
    "--flow",
    "file",
    metavar="FILE",
    shell_complete=complete("files"),
    help="A workflow instead of a command (docs/workflows.md).",
)
@input_option
@click.option("--kind", metavar="KIND", help="A kind of job; its payload by --field.")
@click.option(
    "--field",
    "payload_fields",
    multiple=True,
    metavar="NAME=VALUE",
    help="A field of that payload; JSON, or else a text.",
)
@_options_of_agents
@options_but(*_UNFIT)
@click.argument("schedule_name", metavar="NAME", shell_complete=complete("nothing"))
@click.argument("when", metavar="WHEN", shell_complete=complete("nothing"))
@click.argument(
    "command",
    metavar="[--] COMMAND [ARG]...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=complete("files"),
)
def add(
    schedule_name: str,
    when: str,
    command: tuple[str, ...],
    zone: str | None,
    until: str | None,
    agent_name: str | None,
    file: str | None,
    inputs: dict[str, str],
    kind: str | None,
    payload_fields: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Have COMMAND run whenever it is WHEN: cron's five fields, or words.

    \b
    relayq schedule add backup 'daily at 3:00' --on mini -- restic backup ~/Documents
    relayq schedule add poll 'every 20m' --timeout 5m './poll.sh | tee -a poll.log'
    relayq schedule add review 'weekdays at 9:30' --agent claude --cwd ~/app 'review TODO.md'
    relayq schedule add nightly 'daily at 1:00' --flow nightly.yml
    """
    from relayq.cli import schedulelists

    how = {name: options.pop(name) for name in ("catch_up", "grace", "overlap", "jitter")}
    stored = {name: options.pop(name) for name in ("paused", "replace")}
    how |= {"jitter": how["jitter"] or 0.0, "tz": zone, "until": _until(until)}
    if file is None:
        asked = _asked(command, agent_name, kind, payload_fields, options)
    else:
        asked = _nothing_else(command, agent_name, kind, payload_fields, options)
    if dry_run:
        _describe(schedule_name, when, {**asked, **how}, file, inputs, as_json=as_json)
        return
    with client(starts=True, quiet=quiet) as relay:
        asked |= _flow(relay, file, inputs)
        made = relay.job.schedule(schedule_name, when, **asked, **how, **stored)
        record = made.refresh()
        if as_json:
            from relayq.cli import show

            show.print_json({"schedule": schedulelists.as_json(record), "is_new": made.is_new})
        elif not quiet:
            click.echo(schedulelists.line(record, clock.now()))


def _until(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return instant_of(text, clock.now())
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}", param_hint="--until") from error


def _asked(
    command: tuple[str, ...],
    agent_name: str | None,
    kind: str | None,
    payload_fields: tuple[str, ...],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return the client's keywords for what recurs."""
    shell = options.pop("shell")
    options |= {"after": (), "after_any": (), "due_at": None, "delay": None}
    if agent_name is not None:
        from relayq import config

        asked = agents.asked_of_prompt(config.load(), command, agent_name, options)
        return {"cmd": asked.pop("prompt"), **asked}
    if given := [name for name in _OF_AGENTS if options.pop(name) not in (None, (), False)]:
        raise click.UsageError(f"--{given[0].replace('_', '-')} is for an --agent")
    asked = asked_of(**options)
    if kind is None:
        if payload_fields:
            raise click.UsageError("--field is for a --kind")
        return {**asked, "cmd": command_line(command, shell=shell)}
    if command:
        raise click.UsageError("a --kind has its payload by --field, and no command")
    return {**asked, "kind": kind, **dict(map(_field, payload_fields))}


def _nothing_else(*given: Any) -> dict[str, Any]:
    """Return no keywords, for a workflow; what its jobs are asked stands in its file."""
    *others, options = given
    if any(others) or any(value not in (None, (), False) for value in options.values()):
        raise click.UsageError("a workflow's jobs have their command and options in its file")
    return {}


def _flow(relay: Relay, file: str | None, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the keyword for a workflow, checked as a run of it would be."""
    if file is None:
        return {}
    from relayq.workflows import Flows

    return {"flow": Flows(relay).load(file).check(**inputs)}


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"expected NAME=VALUE, got {text!r}", param_hint="--field")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _describe(
    name: str,
    when: str,
    asked: dict[str, Any],
    file: str | None,
    inputs: Mapping[str, str],
    *,
    as_json: bool,
) -> None:
    """Say when it would come, and what would be queued; the broker is asked only about hosts."""
    from relayq.cli import schedulelists, show
    from relayq.client import Relay

    about_hosts = any(asked.get(one) for one in ABOUT_HOSTS) and not asked.get("wait_for_host")
    with client(starts=bool(file)) if about_hosts or file else Relay() as relay:
        planned = relay.job.plan_schedule(name, when, **asked, **_flow(relay, file, inputs))
    if as_json:
        show.print_json({"dry_run": True, "schedule": schedulelists.planned_as_json(planned)})
        return
    for at in schedulelists.instants_of(planned):
        click.echo(schedulelists.when_of(at, planned.zone, planned.since))
    if planned.flow is None:
        tell_plan(planned.spec, as_json=False)
