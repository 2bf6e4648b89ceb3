"""Scenes of the tests: a fresh job in any state, a claim with wants, who was woken."""

from __future__ import annotations

import json
import secrets
from typing import Any

from relayq.model.jobs import JobState
from relayq.model.placement import Placement
from relayq.store.leases import Claim
from tests.redis.fleet import LEASE, Fleet, FleetHost, spec


def reach(fleet: Fleet, state: JobState, **options: Any) -> str:
    """Return the id of a job in this state; its host, if it has one, is pi4."""
    if state is JobState.WAITING:
        return fleet.submit(after=(fleet.submit(host="elsewhere"),), **options)
    if state is JobState.SCHEDULED:
        return fleet.submit(due_at=fleet.now() + 3600, **options)
    if state is JobState.QUEUED:
        return fleet.submit(**options)
    host = fleet.host()
    token = host.start(fleet.submit(**options))
    if state is JobState.LOST:
        fleet.expire()
    elif state is not JobState.RUNNING:
        host.finish(token, state)
    assert fleet.state(token.id) is state
    return token.id


def ask(host: FleetHost, queues: dict[str, str], **options) -> Claim | str:
    """Claim from queues whose jobs want this of the host."""
    return host.fleet.store.leases.claim(
        host.who,
        list(queues),
        wants=list(queues.values()),
        uid=secrets.token_hex(6),
        lease=LEASE,
        **options,
    )


def woken(fleet: Fleet, host: str) -> list[str]:
    """Return the queues for which a host was woken, and forget that."""
    key = fleet.key("control", host)
    messages = [json.loads(row) for row in fleet.store.connection.lrange(key, 0, -1)]
    fleet.store.connection.delete(key)
    return [message.get("queue", "") for message in messages if message["op"] == "wake"]


def prefer(fleet: Fleet, host: str, *, overflow: float = 20.0, **options) -> str:
    """Submit a job that waits for a host first, and return its id."""
    one = spec(prefer=host, **options)
    placement = Placement(f"host.{host}", host=host, wide=one.queue, overflow=overflow)
    fleet.dispatcher.submit([one], placements=[placement])
    return one.id
