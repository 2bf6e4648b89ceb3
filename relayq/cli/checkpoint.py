"""`relayq checkpoint`, inside a job: what its next attempt goes on from.

It is a file of the attempt, from where the worker brings it on: no broker is needed here.
"""

from __future__ import annotations

import os
import sys

import click

from relayq.cli.options import json_option
from relayq.errors import RelayqError


@click.group()
def checkpoint() -> None:
    """Leave word from inside a job for its next attempt, and read what was left.

    How it goes on from there: docs/checkpoints.md.
    """


@checkpoint.command("set")
@click.argument("text", metavar="TEXT | -")
@json_option
def set_checkpoint(text: str, as_json: bool) -> None:
    """Leave TEXT for the job's next attempt, in place of what was left before.

    With - it is the standard input, byte by byte. An empty text takes back what was left. At most
    256 KiB.

    Example: relayq checkpoint set 1200
    """
    from relayq.host.checkpoints import LARGEST, write

    path = _path()
    content = sys.stdin.buffer.read(LARGEST + 1) if text == "-" else os.fsencode(text)
    try:
        write(path, content)
    except OSError as error:
        said = f"the checkpoint can't be written: {error.strerror or error}"
        raise RelayqError(said, hint="df -h") from error
    if as_json:
        _print_json(content)


@checkpoint.command("get")
@json_option
@click.pass_context
def get_checkpoint(ctx: click.Context, as_json: bool) -> None:
    """Print what was left, byte by byte; ends with 1 if nothing was.

    Example: from=$(relayq checkpoint get || echo 0)
    """
    from relayq.cli import show
    from relayq.host.checkpoints import read

    content = read(_path())
    if as_json:
        _print_json(content)
    elif content is not None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    if content is None:
        if not as_json:
            show.remark("no attempt of this job has left a checkpoint")
        ctx.exit(1)


def _path() -> str:
    from relayq.host.checkpoints import VARIABLE

    path = os.environ.get(VARIABLE, "")
    if not os.path.isabs(path):
        raise RelayqError(
            "this isn't inside a job, and there is no next attempt",
            hint="relayq run 'relayq checkpoint set 42'",
        )
    return path


def _print_json(content: bytes | None) -> None:
    from relayq.cli import show

    text = None if not content else content.decode(errors="replace")
    show.print_json({"checkpoint": text})
