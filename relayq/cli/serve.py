"""`relayq serve`: be the file service of this machine."""

from __future__ import annotations

import logging

import click

from relayq.cli.services import load_config, remark
from relayq.errors import RelayqError


@click.command()
@click.option("--host", metavar="ADDRESS", help="Listen here, instead of where the broker does.")
@click.option("--port", type=click.IntRange(1, 65_535), metavar="PORT", help="Listen at this port.")
@click.option("--background", is_flag=True, hidden=True)
def serve(host: str | None, port: int | None, background: bool) -> None:
    """Be the file service, in the foreground, until told to stop.

    It belongs on the broker's machine, where relayq up starts it in the background. Jobs' files of
    more than 256 KiB go through it; every request needs a token that the fleet's key signed.
    """
    from dataclasses import replace

    from relayq import embedded

    config = load_config()
    if not embedded.can_serve_files():
        raise RelayqError(
            "the file service isn't installed here", hint="pip install 'relayq[serve]'"
        )
    if host is not None:
        embedded.check_listen(host)
    config = replace(
        config,
        serve=replace(config.serve, host=host or config.serve.host, port=port or config.serve.port),
    )
    from relayq.serve.program import run

    logging.basicConfig(
        level=config.logging.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    run(config, say=remark, is_background=background)
