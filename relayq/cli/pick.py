"""`relayq hosts pick`: where a job would go now, without submitting one."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from relayq.cli.options import client, complete, duration_option, json_option
from relayq.cli.placing import asked_where, constraint_options, memory_option, shared
from relayq.cli.texts import inert, span
from relayq.model.strategies import Strategy

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.hosts import Host
    from relayq.model.placement import Constraints, Placement


@click.command("pick")
@memory_option
@shared(constraint_options)
@click.option(
    "--prefer", metavar="HOST", shell_complete=complete("hosts"), help="This host if it can."
)
@click.option(
    "--overflow",
    type=duration_option,
    metavar="DURATION",
    help="... and after so long any that fits.",
)
@click.option("--kind", default="run_command", metavar="KIND", help="What the job would run.")
@click.option(
    "--strategy",
    type=click.Choice([one.value for one in Strategy]),
    metavar="NAME",
    help=f"How one of several is chosen: {', '.join(Strategy)}.",
)
@json_option
def pick(kind: str, strategy: str | None, as_json: bool, **options: Any) -> None:
    """Show which hosts would take a job with such constraints now, and what the others lack.

    Nothing is submitted. Exits with 125 when no known host could ever take it.

    Example: relayq hosts pick --needs ffmpeg --strategy least-loaded
    """
    from relayq.cli import show
    from relayq.model.placement import facts_of, own_names, place
    from relayq.specs import constraints_for

    with client() as relay:
        hosts = relay.session().store.hosts.list(online_within=relay.config.lease.length)
        known = [facts_of(host) for host in hosts]
        constraints = own_names(constraints_for(relay.config, kind, asked_where(options)), known)
        strategy = strategy or relay.config.scheduler.balance
        full = _without_room(relay, hosts, kind, constraints)
    placement = place(constraints, known, strategy, randomness=random.random())
    answers = [_answer(host, constraints, placement, full.get(host.name)) for host in hosts]
    if as_json:
        show.print_json(_as_json(placement, strategy, answers))
    else:
        _print(placement, strategy, answers)


def _without_room(
    relay: Relay, hosts: Sequence[Host], kind: str, constraints: Constraints
) -> Mapping[str, str]:
    """Return which hosts have a limit or resource that is used up, and say which."""
    from relayq.model.answers import used_up

    store, takes = relay.session().store, constraints.resources
    limiting = [h for h in hosts if h.active and (takes or h.facts.get("limits"))]
    running = store.places.running_on([host.name for host in limiting])
    said = {
        host.name: used_up(host, kind, takes, store.jobs.fetch_many(running[host.name]))
        for host in limiting
    }
    return {name: why for name, why in said.items() if why is not None}


def _answer(
    host: Host, constraints: Constraints, placement: Placement, full: str | None
) -> dict[str, Any]:
    """Return what a host would say, in a word or two and with its reason."""
    from relayq.model.placement import facts_of, lacks

    facts = facts_of(host)
    missing = lacks(constraints, facts)
    free = max(0, host.slots - host.active)
    why = f"{free} of {host.slots} slots free"
    if missing:
        answer, why = "no", ", ".join(missing)
    elif not facts.is_available:
        answer, why = "not now", ": ".join(filter(None, host.standing))
    elif host.name == placement.host:
        answer, why = "chosen", f"no room now: {full}" if full else why
    elif full or not free:
        answer, why = "busy", f"no room now: {full}" if full else why
    else:
        answer = "could"
    return {"name": host.name, "answer": answer, "why": why, "load": facts.load, "lacks": missing}


def _as_json(
    placement: Placement, strategy: str, answers: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "host": placement.host,
        "strategy": str(strategy),
        "queue": placement.queue,
        "wide": placement.wide,
        "overflow": placement.overflow,
        "hosts": list(answers),
    }


def _print(placement: Placement, strategy: str, answers: list[dict[str, Any]]) -> None:
    width = max((len(one["name"]) for one in answers), default=0)
    for one in answers:
        click.echo(f"{inert(one['name']):<{width}}  {one['answer']:<7}  {inert(one['why'])}")
    if placement.host is None:
        end = "the first host that can and has room takes it"
    elif placement.wide is None or placement.overflow is None:
        end = f"{placement.host} takes it"
    else:
        end = f"{placement.host} has {span(placement.overflow)}, then {placement.wide}"
    click.echo(f"queue {inert(placement.queue)} ({strategy}): {inert(end)}")
