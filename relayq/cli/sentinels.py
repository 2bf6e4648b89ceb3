"""`relayq broker sentinels`: the files of a broker on several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relayq.cli.options import json_option
from relayq.cli.services import answer, remark
from relayq.parsing import size

_WHERE = "/var/lib/relayq-broker"


def _memory(ctx: click.Context, param: click.Parameter, text: str | None) -> int:
    try:
        return 0 if text is None else size(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, got {text!r}") from error


@click.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS ADDRESS ADDRESS...")
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("relayq-broker"),
    help="The directory to write (relayq-broker); what has a secret there keeps it.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME",
    help="A user: worker-HOST or client-HOST; repeatable (worker and client).",
)
@click.option("--tls", "is_encrypted", is_flag=True, help="Over TLS, with an authority of its own.")
@click.option("--memory", callback=_memory, metavar="SIZE", help="What each Redis may use.")
@click.option("--port", type=click.IntRange(1, 65_535), default=6379, help="Of Redis (6379).")
@click.option(
    "--sentinel-port", type=click.IntRange(1, 65_535), default=26_379, help="Its port (26379)."
)
@click.option(
    "--directory",
    "place",
    type=click.Path(path_type=Path),
    default=Path(_WHERE),
    help=f"Where each machine will have its files ({_WHERE}).",
)
@json_option
def sentinels(out: Path, as_json: bool, **options: Any) -> None:
    """Write the configuration of a broker on 3 machines that survives the loss of one.

    Each ADDRESS is a machine's in your private network, the first one the primary's at first. Each
    gets a Redis and a sentinel; docs/high-availability.md says how they are started.
    """
    from relayq.embedded import nodes

    asked = {name: value for name, value in options.items() if name != "users" or value}
    plan = nodes.Plan(**asked)
    url = nodes.write_nodes(out, plan)
    value = {
        "directory": str(out.absolute()),
        "url": url,
        "nodes": {one: str((out / one).absolute()) for one in plan.addresses},
        "passwords": {one: str((out / f"{one}.password").absolute()) for one in plan.users},
    }
    answer(_TEXT.format(out=out, url=url, place=plan.place, user=plan.users[0]), as_json, value)
    if not as_json:
        remark(f"{out} has all secrets in it: keep it where nobody else reads")


_TEXT = """\
On each machine, copy {out}/ITS-ADDRESS to {place}, for the user that Redis runs as, and start
  redis-server {place}/redis.conf
  redis-server {place}/sentinel.conf --sentinel
On each machine of the fleet, copy {out}/USER.password to ~/.relayq/password (mode 600), and write
into ~/.relayq/config.yml:
  broker:
    url: {url}
    user: {user}
    password_file: ~/.relayq/password"""
