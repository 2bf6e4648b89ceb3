"""`relayq status`: the broker, every host, and what waits for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from relayq import __version__, clock
from relayq.cli import fleet, templates
from relayq.cli.options import address, broker_of, client, json_option
from relayq.cli.texts import age, inert, instant, number_of
from relayq.errors import BrokerUnavailable
from relayq.model.jobs import JobState
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.accounts import Account
    from relayq.model.hosts import Host

_DEGRADED = 3
_NO_BROKER = 4


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is known of all of it, from a few calls to the broker and none to a host."""

    where: str
    broker: Mapping[str, Any]
    latency: float
    hosts: Sequence[Host]
    counts: Mapping[JobState, int]
    oldest_at: float | None
    last_day: fleet.LastDay
    accounts: Sequence[Account] = ()
    asking: int = 0

    @classmethod
    def look(cls, relay: Relay) -> Fleet:
        """Look at the broker."""
        store = relay.session().store
        began = clock.boottime()
        broker = store.server_facts()
        latency = clock.boottime() - began
        return cls(
            where=address(broker_of(relay.config)),
            broker=broker,
            latency=latency,
            hosts=fleet.hosts_of(relay),
            counts=store.jobs.count(),
            oldest_at=store.places.oldest_queued(),
            last_day=store.stats.last_day(now=clock.now()),
            accounts=store.accounts.list(),
            asking=len(store.questions.asking()),
        )

    @property
    def online(self) -> int:
        """How many hosts are online."""
        return sum(host.is_online for host in self.hosts)

    def head(self) -> list[str]:
        """Return the parts of the first line."""
        aof = f"aof {'on' if self.broker.get('aof_enabled') else 'off'}"
        facts = f"redis {self.broker['redis_version']}, {aof}, {self.latency * 1000:.0f} ms, "
        facts += size_text(self.broker.get("used_memory", 0))
        queued = f"queue {self.counts[JobState.QUEUED]}"
        if self.oldest_at is not None:
            queued += f" (oldest {age(clock.now() - self.oldest_at)})"
        hosts = f"{self.online} of {number_of(len(self.hosts), 'host')} online"
        return [f"relayq {__version__}", f"broker {self.where} ({facts})", hosts, queued]

    def lines(self) -> list[str]:
        """Return what follows the table: where a person is needed."""
        waiting = self.counts[JobState.NEEDS_HUMAN] + self.asking
        lost = self.counts[JobState.LOST]
        lines = [f"agents: {' . '.join(map(_account, self.accounts))}"] if self.accounts else []
        lines += [f"needs you: {number_of(waiting, 'job')} (relayq review)"] if waiting else []
        return [*lines, f"lost: {number_of(lost, 'job')} (relayq why)"] if lost else lines

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        from relayq.cli.fleet import account_as_json
        from relayq.cli.texts import rfc3339

        return {
            "version": __version__,
            "broker": {
                "address": self.where,
                "redis_version": self.broker["redis_version"],
                "aof": bool(self.broker.get("aof_enabled")),
                "latency": round(self.latency, 6),
                "memory": self.broker.get("used_memory"),
            },
            "queued": self.counts[JobState.QUEUED],
            "oldest_queued_at": None if self.oldest_at is None else rfc3339(self.oldest_at),
            "jobs": {state.value: count for state, count in self.counts.items()},
            "hosts": [fleet.host_as_json(host, self.last_day) for host in self.hosts],
            "accounts": [account_as_json(one) for one in self.accounts],
            "asking": self.asking,
        }


def _account(one: Account) -> str:
    """Say in a few words how it stands with an account of an agent."""
    name = inert(one.name.removesuffix("/default"))
    waiting = f", {one.queued} waiting" if one.queued else ""
    if one.until is not None:
        return f"{name} paused until {instant(one.until)}{waiting}"
    limit = "" if one.limit is None else f"/{one.limit}"
    return f"{name} {len(one.active)}{limit} running{waiting}"


@click.command()
@templates.format_option(templates.host_fields)
@json_option
@click.pass_context
def status(ctx: click.Context, template: templates.Template | None, as_json: bool) -> None:
    """Show the broker and every host; exits with 3 when none is online, 4 without a broker.

    Example: relayq status --format '{{.name}} {{.state}}'
    """
    try:
        with client() as relay:
            ctx.exit(_show(Fleet.look(relay), template, as_json=as_json))
    except BrokerUnavailable as error:
        error.exit_code = _NO_BROKER
        raise


def _show(found: Fleet, template: templates.Template | None, *, as_json: bool) -> int:
    from relayq.cli import show, tables

    if template is not None:
        templates.print_all(template, [templates.of_host(host) for host in found.hosts])
    elif as_json:
        show.print_json(found.as_json())
    else:
        click.echo("\n".join(tables.joined(found.head())))
        if found.hosts:
            tables.table(*fleet.host_table(found.hosts, clock.now(), found.last_day))
        for line in found.lines():
            click.echo(line)
    if found.online:
        return 0
    show.hint("no host is online; on one that should be: relayq up")
    return _DEGRADED
