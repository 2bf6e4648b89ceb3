"""`relayq serve`: be the file service of this machine."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from relayq.cli.groups import Group
from relayq.cli.services import load_config, remark
from relayq.errors import RelayqError

_LOG_LIMIT = 10_000_000


@click.group(
    cls=Group,
    invoke_without_command=True,
    elsewhere={
        "install": "relayq.cli.installs:serve_install",
        "uninstall": "relayq.cli.installs:serve_uninstall",
        "restart": "relayq.cli.installs:serve_restart",
        "status": "relayq.cli.installed:serve_status",
        "logs": "relayq.cli.installed:serve_logs",
    },
)
@click.option("--host", metavar="ADDRESS", help="Listen here, instead of where the broker does.")
@click.option("--port", type=click.IntRange(1, 65_535), metavar="PORT", help="Listen at this port.")
@click.option("--background", is_flag=True, hidden=True)
@click.option("--service", "is_service", is_flag=True, hidden=True)
@click.pass_context
def serve(
    ctx: click.Context, host: str | None, port: int | None, background: bool, is_service: bool
) -> None:
    """Be the file service, in the foreground, until told to stop; or have it be a service.

    It belongs on the broker's machine, where relayq up starts it in the background. Jobs' files of
    more than 256 KiB go through it; every request needs a token that the fleet's key signed.
    """
    if ctx.invoked_subcommand is not None:
        return
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

    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if is_service:
        embedded.end_files(config)
        handlers.append(_rotated(embedded.files_folder(config) / "serve.log"))
    logging.basicConfig(
        level=config.logging.level,
        handlers=handlers,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    run(config, say=remark, is_background=background)


def _rotated(path: Path) -> logging.Handler:
    from logging.handlers import RotatingFileHandler

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return RotatingFileHandler(path, maxBytes=_LOG_LIMIT, backupCount=1)
