"""`relayq ssh`: a shell on a host, by plain ssh."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence

import click

from relayq.cli import fleet
from relayq.cli.options import client, complete, json_option
from relayq.errors import RelayqError

#: What ssh takes, and no shell that ssh may start makes anything of.
ADDRESS = re.compile(r"(?:[\w.+-]{1,64}@)?[\w:][\w.:%-]{0,254}")


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("--dry-run", is_flag=True, help="Only print what would be run.")
@json_option
@click.argument("name", metavar="HOST", shell_complete=complete("hosts"))
@click.argument("command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def ssh(tty: bool, dry_run: bool, as_json: bool, name: str, command: Sequence[str]) -> None:
    """Open a shell on a host, or run a command there; ssh must know the way in.

    The address is hosts.HOST.address of the configuration here, else what the host's own
    worker.address says, else its address on the way to the broker, else its name.

    Example: relayq ssh -t pi4 htop
    """
    argv = ["ssh", *(["-t"] if tty else []), "--", target_of(name), *command]
    if as_json:
        from relayq.cli.show import print_json

        print_json({"argv": argv})
    elif dry_run:
        click.echo(shlex.join(argv))
    elif shutil.which("ssh") is None:
        raise RelayqError("there is no ssh here", hint="install OpenSSH's client")
    else:
        os.execvp(argv[0], argv)


def target_of(name: str) -> str:
    """Return what ssh is to connect to for a host."""
    from relayq import config

    loaded = config.load()
    entry = loaded.hosts.get(loaded.host_called(name))
    if entry is not None and entry.address:
        # A broker that is down is a reason to log in.
        return entry.address
    with client() as relay:
        host = fleet.find(relay, name)
    entry = loaded.hosts.get(host.name)
    if entry and entry.address:
        return entry.address
    said = str(host.facts.get("address") or host.name)
    if not ADDRESS.fullmatch(said):
        # It comes from Redis, and ssh's own configuration may give it to a shell.
        raise RelayqError(
            f"{host.name} says that its address is {said!r:.100}, which is none",
            hint=f"relayq config set hosts.{host.name}.address ADDRESS",
        )
    return said
