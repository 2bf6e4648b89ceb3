"""`relayq status`: the broker and every host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relayq import __version__, clock
from relayq.cli import templates
from relayq.cli.options import address, broker_of, client, json_option
from relayq.errors import BrokerUnavailable
from relayq.model.jobs import JobState

if TYPE_CHECKING:
    from relayq.client import Relay

_DEGRADED = 3
_NO_BROKER = 4


@click.command()
@templates.format_option(templates.host_fields)
@json_option
@click.pass_context
def status(ctx: click.Context, template: templates.Template | None, as_json: bool) -> None:
    """Show the broker and every host; exits with 3 when none is online, 4 without a broker."""
    try:
        with client() as relay:
            ctx.exit(_show(relay, template, as_json=as_json))
    except BrokerUnavailable as error:
        error.exit_code = _NO_BROKER
        raise


def _show(relay: Relay, template: templates.Template | None, *, as_json: bool) -> int:
    from relayq.cli import show, tables

    store = relay.session().store
    facts = store.server_facts()
    hosts = store.hosts.list(online_within=relay.config.lease.length)
    queued = store.jobs.count()[JobState.QUEUED]
    online = sum(host.is_online for host in hosts)
    where = address(broker_of(relay.config))
    version, aof = facts["redis_version"], bool(facts.get("aof_enabled"))
    if template is not None:
        templates.print_all(template, [templates.of_host(host) for host in hosts])
    elif as_json:
        broker = {"address": where, "redis_version": version, "aof": aof}
        shown = [show.host_as_json(host) for host in hosts]
        show.print_json(
            {"version": __version__, "broker": broker, "queued": queued, "hosts": shown}
        )
    else:
        redis = f"redis {version}, aof {'on' if aof else 'off'}"
        parts = [f"relayq {__version__}", f"broker {where} ({redis})"]
        parts += [f"{online} of {len(hosts)} hosts online", f"queue {queued}"]
        click.echo("\n".join(tables.joined(parts)))
        if hosts:
            tables.table(show.HOST_COLUMNS, show.host_rows(hosts, clock.now()))
    if online:
        return 0
    show.hint("no host is online; on one that should be: relayq up")
    return _DEGRADED
