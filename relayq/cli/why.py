"""`relayq why`: why a job is where it is, host by host."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relayq.cli import selection
from relayq.cli.options import client, json_option
from relayq.cli.selection import Chosen
from relayq.cli.texts import inert, instant, span
from relayq.model.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relayq.client import JobResult, Relay
    from relayq.model.answers import HostAnswer
    from relayq.model.explanations import Explanation
    from relayq.model.hosts import Host
    from relayq.model.jobs import JobRecord

#: More hosts than so many that say the same share a line.
_ALIKE = 5


@click.command()
@selection.selecting
@json_option
def why(chosen: Chosen, as_json: bool) -> None:
    """Say why jobs are where they are: not yet started, running, lost, or ended."""
    from relayq.cli import show

    with client() as relay:
        explained = [
            (result, _explanation(relay, result))
            for result in chosen.results(relay, frozenset(JobState))
        ]
    if as_json:
        values = [_as_json(result, explanation) for result, explanation in explained]
        show.print_json(values[0] if chosen.is_one else {"jobs": values})
        return
    for number, (result, explanation) in enumerate(explained):
        if number:
            click.echo()
        _print(result, explanation)


def _explanation(relay: Relay, result: JobResult) -> Explanation:
    """Look around a job, and say what is there."""
    from relayq.model.explanations import Scene, explain

    store = relay.session().store
    record = result.record
    is_queued = record.state is JobState.QUEUED
    hosts = store.hosts.list(online_within=relay.config.lease.length)
    full = [host.name for host in hosts if is_queued and host.active >= host.slots]
    spec = record.spec
    after = () if spec is None else record.fanned or (*spec.after, *spec.after_any)
    scene = Scene(
        hosts=hosts,
        taken=_taken(relay, hosts, record) if is_queued else {},
        fleet=_fleet(relay) if is_queued else "",
        running=store.places.running_on(full),
        parents=store.jobs.fetch_many(after),
        outcome=result.outcome() if record.attempt else None,
        crash_limit=relay.config.retry.crash_limit,
    )
    return explain(record, store.places.around(record), scene, span=span, when=instant)


def _taken(
    relay: Relay, hosts: Sequence[Host], record: JobRecord
) -> dict[str, Sequence[JobRecord]]:
    """Return what runs on the hosts whose limits or resources the job meets."""
    store = relay.session().store
    takes = record.spec is not None and record.spec.resources
    limiting = [h.name for h in hosts if h.active and (takes or h.facts.get("limits"))]
    running = store.places.running_on(limiting)
    return {host: store.jobs.fetch_many(ids) for host, ids in running.items()}


def _fleet(relay: Relay) -> str:
    """Say so when the whole fleet runs as much as it may."""
    limit = relay.config.scheduler.max_running
    if not limit:
        return ""
    counts = relay.session().store.jobs.count()
    running = counts[JobState.RUNNING] + counts[JobState.LOST]
    return f"{running} of {limit} jobs run in the whole fleet" if running >= limit else ""


def _as_json(result: JobResult, explanation: Explanation) -> dict[str, Any]:
    return {"id": result.id, "state": result.record.state.value, **asdict(explanation)}


def _grouped(answers: Sequence[HostAnswer]) -> list[tuple[str, HostAnswer]]:
    """Return who says what; of many hosts that say the same, two by name and how many more."""
    same: dict[tuple[str, str], list[HostAnswer]] = {}
    for one in answers:
        same.setdefault((one.answer, one.why), []).append(one)
    told = []
    for some in same.values():
        if len(some) <= _ALIKE:
            told += [(one.host, one) for one in some]
        else:
            told.append((f"{some[0].host}, {some[1].host}, {len(some) - 2} more", some[0]))
    return told


def _print(result: JobResult, explanation: Explanation) -> None:
    from relayq.cli import show

    what = inert(show.what_of(result.record.spec))
    click.echo(f"{result.id} {what[:60]} {inert(explanation.summary)}")
    for fact in explanation.facts:
        click.echo(f"  {inert(fact)}")
    told = _grouped(explanation.hosts)
    width = max((len(who) for who, _ in told), default=0)
    for who, one in told:
        click.echo(f"  {inert(who):<{width}}  {one.answer:<8}  {inert(one.why)}")
    if explanation.options:
        click.echo(f"Options: {' . '.join(explanation.options)}")
