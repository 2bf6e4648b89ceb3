"""The command line: its root, and the one edge where an error becomes a message and an exit code.

Commands live in modules of their own, imported when one of them runs: `relayq --help` imports
click and nothing else that is slow.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from importlib import import_module
from typing import Any

import click

from relayq.errors import RelayqError

__all__ = ["COMMANDS", "main", "root"]

#: Name -> where its click command is, and its line in the help.
COMMANDS = {
    "run": ("relayq.cli.jobs:run", "Run a command: live output, its own exit code."),
    "submit": ("relayq.cli.jobs:submit", "Queue a command and print its id."),
    "ps": ("relayq.cli.jobs:ps", "List jobs: active, queued, recently ended."),
    "show": ("relayq.cli.jobs:show_job", "Show all about one job."),
    "logs": ("relayq.cli.output:logs", "Print a job's output."),
    "wait": ("relayq.cli.jobs:wait", "Wait until jobs end."),
    "cancel": ("relayq.cli.jobs:cancel", "End jobs, with all of their processes."),
    "retry": ("relayq.cli.jobs:retry", "Queue an ended job again."),
    "status": ("relayq.cli.hosts:status", "Show the broker and every host."),
    "up": ("relayq.cli.services:up", "Start what this machine needs to run jobs."),
    "down": ("relayq.cli.services:down", "Stop this machine's worker and private broker."),
    "worker": ("relayq.cli.services:worker", "Start and stop this machine's worker."),
    "broker": ("relayq.cli.services:broker", "Start and stop a broker on this machine."),
    "version": ("relayq.cli.services:version", "Print relayq's version."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' help without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])

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


def tell(error: RelayqError, *, as_json: bool = False) -> None:
    """Say what went wrong and what to type next."""
    if as_json:
        code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
        said = {"code": code, "message": error.message, "hint": error.hint}
        click.echo(json.dumps({"schema": 1, "error": said}))
        return
    click.echo(f"relayq: {error.message}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Run anything on any of your machines."""
    if ctx.invoked_subcommand is None:
        command = root.get_command(ctx, "ps")
        assert command is not None
        ctx.invoke(command)


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        code = root.main(arguments, prog_name="relayq", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return _without_reader()
    return code if isinstance(code, int) else 0


def _without_reader() -> int:
    """Return what a shell calls an end by SIGPIPE; Python's own last flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
