"""A fresh job in any state, by the moves that lead there."""

from __future__ import annotations

from typing import Any

from relayq.model.jobs import JobState
from tests.redis.fleet import Fleet


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
