"""attach: be a running job's terminal again."""

from __future__ import annotations

import sys
from functools import partial

import click

from relayq.cli.options import client, complete, quiet_option
from relayq.errors import Conflict


@click.command()
@click.argument("job", metavar="JOB", shell_complete=complete("jobs"))
@quiet_option
@click.pass_context
def attach(ctx: click.Context, job: str, quiet: bool) -> None:
    """Follow a running job, type into it if it has a terminal, and exit with its code.

    ~. at the beginning of a line detaches, as with ssh, and ^C where it has no terminal; the job
    goes on.
    """
    from relayq.cli import output, terminal

    with client(needs_worker=True, quiet=quiet) as relay:
        (result,) = relay.job.select([job])
        record = result.record
        if not record.state.is_waitable:
            raise Conflict(
                f"{result.id} is {record.state.value} already", hint=f"relayq logs {result.id}"
            )
        source = None
        if record.spec is not None and record.spec.payload.get("tty") and sys.stdin.isatty():
            position = relay.session().store.inputs.sent(result.id)
            source = partial(terminal.terminal, position=position)
        code = output.attach(relay, result, source, quiet=quiet)
    ctx.exit(code)
