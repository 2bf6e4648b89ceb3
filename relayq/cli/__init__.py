"""The command line: its root, and the one edge where an error becomes a message and an exit code.

Commands live in modules of their own, imported when one of them runs: `relayq --help` imports
click and nothing else that is slow.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from relayq.errors import ConfigError, Conflict, NoSuchJob, OutputUnavailable, RelayqError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["COMMANDS", "main", "root"]

#: Heading -> name -> where its click command is, and its line in the help.
SECTIONS = {
    "Run things": {
        "run": ("relayq.cli.submissions:run", "Run a command: live output, its own exit code."),
        "submit": ("relayq.cli.submissions:submit", "Queue a command and print its id."),
        "map": ("relayq.cli.map:map_command", "Run a command once for each of many inputs."),
        "watch": ("relayq.cli.watch:watch", "Run a command for each file that appears."),
        "transcode": ("relayq.cli.transcode:transcode", "Convert video and sound, with progress."),
        "transcribe": ("relayq.cli.transcribe:transcribe", "Speech to text, or subtitles."),
        "agent": ("relayq.cli.agent:agent", "Have AI agents work; list, test, log in."),
        "analyze": ("relayq.cli.analyze:analyze", "Read a codebase with N agent sessions; report."),
        "flow": ("relayq.cli.flow:flow", "Workflows: run, ls, show, graph, cancel, retry, check."),
        "schedule": ("relayq.cli.schedule:schedule", "Jobs that come again and again."),
        "assign": ("relayq.cli.assign:assign", "Say it in words; confirm host and agent."),
    },
    "Look and wait": {
        "ps": ("relayq.cli.listing:ps", "List jobs: active, queued, recently ended."),
        "show": ("relayq.cli.jobs:show_job", "Show all about jobs."),
        "logs": ("relayq.cli.jobs:logs", "Print what jobs write."),
        "attach": ("relayq.cli.attach:attach", "Be a running job's terminal again."),
        "wait": ("relayq.cli.jobs:wait", "Wait until jobs end."),
        "why": ("relayq.cli.why:why", "Say why jobs are where they are, host by host."),
        "top": ("relayq.cli.top:top", "Watch hosts and jobs, live."),
        "progress": ("relayq.cli.progress:progress", "Inside a job: say how far it is."),
        "checkpoint": (
            "relayq.cli.checkpoint:checkpoint",
            "Inside a job: leave word for its next attempt.",
        ),
        "output": ("relayq.cli.outputs:output", "Inside a job: give values to the next steps."),
        "result": ("relayq.cli.jobs:result", "Print the results of jobs, and nothing else."),
        "get": ("relayq.cli.get:get", "Fetch the files that jobs brought back (cp)."),
        "diff": ("relayq.cli.git:diff", "Show what a job changed in git."),
        "apply": ("relayq.cli.git:apply", "Apply that to a repository here."),
    },
    "Change": {
        "cancel": ("relayq.cli.jobs:cancel", "End jobs, with all of their processes."),
        "pause": ("relayq.cli.pause:pause", "Have jobs, hosts or all of them stand still."),
        "resume": ("relayq.cli.pause:resume", "Let go on what was paused."),
        "retry": ("relayq.cli.jobs:retry", "Queue ended jobs again."),
        "move": ("relayq.cli.changes:move", "Send waiting jobs to another host."),
        "rm": ("relayq.cli.changes:rm", "Forget ended jobs."),
        "prune": ("relayq.cli.changes:prune", "Forget what ended long ago."),
    },
    "Needs you": {
        "review": ("relayq.cli.reviews:review", "Show the jobs that wait for a person."),
        "answer": ("relayq.cli.answer:answer", "Answer what a job asks; it goes on."),
        "ask": ("relayq.cli.ask:ask", "Inside a job: ask a person, and wait for the answer."),
        "resolve": ("relayq.cli.reviews:resolve", "Say what becomes of them."),
        "failures": ("relayq.cli.failures:failures", "Show failed jobs: why, and what to do."),
    },
    "Fleet": {
        "status": ("relayq.cli.status:status", "Show the broker and every host."),
        "hosts": ("relayq.cli.hosts:hosts", "List, label, drain, upgrade, forget hosts."),
        "caps": ("relayq.cli.caps:caps", "Show what hosts can do; teach them more."),
        "secret": ("relayq.cli.secrets:secret", "Keep secrets on this host, for jobs."),
        "key": ("relayq.cli.key:key", "Keys that sign jobs; whose jobs this host runs."),
        "ssh": ("relayq.cli.ssh:ssh", "Open a shell on a host."),
        "stats": ("relayq.cli.stats:stats", "Count what was done, by host or kind."),
        "events": ("relayq.cli.events:events", "Show what happened, where, by whom."),
        "audit": ("relayq.cli.audit:audit", "Prove what happened: trails that nobody changed."),
        "doctor": ("relayq.cli.doctor:doctor", "Find what is wrong, and say what to do."),
        "join": ("relayq.cli.join:join", "Join a fleet with a token of its broker's machine."),
        "up": ("relayq.cli.services:up", "Start what this machine needs to run jobs."),
        "down": ("relayq.cli.services:down", "Stop what up started on this machine."),
        "worker": ("relayq.cli.worker:worker", "Start and stop this machine's worker."),
        "serve": ("relayq.cli.serve:serve", "Be the file service of the broker's machine."),
        "flower": ("relayq.cli.flower:flower", "Be Flower, Celery's dashboard, on this machine."),
        "broker": ("relayq.cli.broker:broker", "Start, stop, watch and back up a broker."),
    },
    "This command": {
        "config": ("relayq.cli.config:config", "Show, check and change the configuration."),
        "completion": ("relayq.cli.completion:completion", "Complete commands in your shell."),
        "version": ("relayq.cli.services:version", "Print relayq's version."),
    },
}

#: Words that people know from elsewhere.
_ALIASES = {
    "cp": "get",
    "inbox": "review",
    "inspect": "show",
    "kill": "cancel",
    "ls": "ps",
    "queue": "ps",
    "skills": "caps",
}
COMMANDS = {name: command for commands in SECTIONS.values() for name, command in commands.items()}


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing any command."""
        from click.shell_completion import CompletionItem

        fitting = [
            CompletionItem(name, help=short)
            for name, (_, short) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*fitting, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' help without importing them."""
        widest = max(map(len, COMMANDS))
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(name.ljust(widest), short) for name, (_, short) in commands.items()]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of a misspelt one say what it may have been."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"no such command: {args[0]}{meant}", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours becomes its message and its exit code."""
        try:
            return super().invoke(ctx)
        except RelayqError as error:
            tell(error, as_json=bool(ctx.meta.get("relayq.json")))
            return ctx.exit(error.exit_code)
        except BrokenPipeError:
            # BrokerUnavailable isn't one: this is our own output, which nobody reads on.
            return ctx.exit(_without_reader())


#: What to type next after an error that doesn't know better.
_HINTS = (
    (ConfigError, "relayq config check"),
    (NoSuchJob, "relayq ps -a"),
    (Conflict, "relayq ps"),
    (OutputUnavailable, "relayq status"),
    (RelayqError, "relayq status"),
)


def tell(error: RelayqError, *, as_json: bool = False) -> None:
    """Say what went wrong and what to type next."""
    hint = error.hint or next(hint for sort, hint in _HINTS if isinstance(error, sort))
    _tell(type(error).__name__, error.message, hint, as_json=as_json)


def _tell_usage(error: click.ClickException, arguments: list[str]) -> None:
    """Say what was typed wrong."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    ctx = getattr(error, "ctx", None)
    command = ctx.command_path if ctx is not None else "relayq"
    message = error.format_message().rstrip(".")
    _tell("UsageError", message, f"{command} --help", as_json=_is_json_asked(arguments))


def _is_json_asked(arguments: list[str]) -> bool:
    return "--json" in arguments or os.environ.get("RELAYQ_OUTPUT") == "json"


def _tell(sort: str, message: str, hint: str, *, as_json: bool) -> None:
    if as_json:
        import json

        code = "".join(f"_{c}" if c.isupper() else c for c in sort).lower().removeprefix("_")
        said = {"code": code, "message": message, "hint": hint}
        click.echo(json.dumps({"schema": 1, "error": said}))
        return
    from relayq.cli.texts import harmless

    # It may tell of names and reasons that others wrote.
    click.echo(f"relayq: {harmless(message)}", err=True)
    click.echo(f"  hint: {harmless(hint)}", err=True)


def _choose_colour(ctx: click.Context, param: click.Parameter, no_color: bool) -> None:
    # click itself leaves colours out where no terminal is; https://no-color.org is ours to obey.
    if no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False


def _choose_json(ctx: click.Context, param: click.Parameter, as_json: bool) -> None:
    ctx.meta["relayq.json"] = as_json


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--no-color",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_choose_colour,
    help="No colours, as with NO_COLOR.",
)
@click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_choose_json,
    help="Answer in JSON, as each command's own --json.",
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Run anything on any of your machines."""
    if ctx.invoked_subcommand is None:
        command = root.get_command(ctx, "ps")
        assert command is not None
        with command.make_context("ps", [], parent=ctx) as asked:
            command.invoke(asked)


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        code = _ran(typed)
        if code == RelayqError.exit_code:
            # Why was said, and it may be this.
            _let_go_of_output()
        sys.stdout.flush()
    except BrokenPipeError:
        return _without_reader()
    except OSError as error:
        _tell_refusal(error, as_json=_is_json_asked(typed))
        return RelayqError.exit_code
    except Exception:
        import traceback

        traceback.print_exc()
        message = "a mistake in relayq itself: the lines above say where"
        _tell("InternalError", message, "relayq doctor", as_json=_is_json_asked(typed))
        return RelayqError.exit_code
    return code


def _ran(arguments: list[str]) -> int:
    try:
        code = root.main(arguments, prog_name="relayq", standalone_mode=False)
    except click.ClickException as error:
        _tell_usage(error, arguments)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    return code if isinstance(code, int) else 0


def _tell_refusal(error: OSError, *, as_json: bool) -> None:
    """Say what the system refused, which may be to write what is said."""
    where = f"{error.filename}: " if error.filename else ""
    said = f"{where}{error.strerror or error}"
    hint = "df -h" if error.errno == errno.ENOSPC else "relayq doctor"
    try:
        _tell("OsError", said, hint, as_json=as_json)
        sys.stdout.flush()
    except OSError:
        _let_go_of_output()
        _tell("OsError", said, hint, as_json=False)


def _let_go_of_output() -> None:
    """Drop what can't be written: Python's own last flush would change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _without_reader() -> int:
    """Return what a shell calls an end by SIGPIPE; Python's own last flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
