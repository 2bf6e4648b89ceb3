"""`relayq flower`: Celery's dashboard, for this machine only."""

from __future__ import annotations

import importlib.util
import logging
from contextlib import closing
from typing import TYPE_CHECKING

import click

from relayq.cli.options import standing_broker
from relayq.cli.services import load_config, remark
from relayq.errors import BrokerUnavailable, RelayqError

if TYPE_CHECKING:
    from relayq.config import Config

_PORT = 5555


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=_PORT,
    show_default=True,
    metavar="PORT",
    help="Listen at this port of 127.0.0.1.",
)
def flower(port: int) -> None:
    """Be Flower, Celery's dashboard, in the foreground, until told to stop.

    It shows jobs, hosts and queues, on this machine only and behind a password that is kept in
    ~/.relayq/flower/password. It changes nothing: its buttons would mean nothing to relayq's jobs.
    """
    config = load_config()
    if importlib.util.find_spec("flower") is None:
        raise RelayqError("Flower isn't installed here", hint="pip install 'relayq[flower]'")
    from relayq.flower.program import alone, run
    from relayq.store import connect

    logging.basicConfig(
        level=config.logging.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # One line for each page that a browser had no password for.
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    with alone(config):
        url = _url(config)
        with closing(connect(url)) as store:
            run(config, url, store, port=port, say=remark)


def _url(config: Config) -> str:
    """Return how the broker is reached: where it is ours, as a user that can only read."""
    url = standing_broker(config)
    if url is None:
        raise BrokerUnavailable("the broker isn't up", hint="relayq up")
    if config.broker_url is not None:
        return url
    from relayq.embedded.users import add_user

    secret = add_user(config, "flower", role="flower")
    scheme, _, place = url.partition("://")
    return f"{scheme}://flower:{secret}@{place.rpartition('@')[2]}"
