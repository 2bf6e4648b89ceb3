"""What Flower is told, read from the broker in a thread: jobs as they change, hosts, queues."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from relayq import clock, kinds
from relayq.cli.show import command_of
from relayq.cli.texts import inert
from relayq.errors import BrokerUnavailable
from relayq.flower.events import worker_name
from relayq.model.hosts import Host, queues_of
from relayq.model.jobs import JobRecord
from relayq.model.placement import facts_of, serves
from relayq.store import Store

log = logging.getLogger(__name__)

#: How long one look waits for events of jobs; hosts and queues are looked at as often.
_PATIENCE = 2.0
_AGAIN = 2.0
#: How many of each state are read when it starts.
_FIRST = 500


@dataclass(frozen=True)
class News:
    """What one look found."""

    jobs: Sequence[tuple[JobRecord, str]] = ()
    hosts: Sequence[Host] = ()
    queues: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, Sequence[JobRecord]] = field(default_factory=dict)


class Heard(Protocol):
    """Who is told."""

    def __call__(self, news: News) -> None:
        """Take it, in any thread."""


class Feed(threading.Thread):
    """Looks, and tells what it saw."""

    def __init__(self, store: Store, online_within: float, heard: Heard) -> None:
        super().__init__(name="feed", daemon=True)
        self._store = store
        self._online_within = online_within
        self._heard = heard
        self._after = ""

    def run(self) -> None:
        """Look for ever; a broker that is away is waited for."""
        while True:
            try:
                self._heard(self._look())
            except BrokerUnavailable as error:
                log.warning("%s", error.message)
                self._after = ""
                clock.sleep(_AGAIN)
            except Exception:
                # One record that can't be read must not end what shows all others.
                log.exception("what the broker has can't be read")
                clock.sleep(_AGAIN)

    def _look(self) -> News:
        records = self._changed()
        hosts = self._store.hosts.list(online_within=self._online_within)
        running = self._store.places.running_on([host.name for host in hosts])
        return News(
            jobs=[(record, inert(command_of(record.spec))) for record in records],
            hosts=hosts,
            queues=self._store.places.queued(q for host in hosts for q in queues_of(host.name)),
            running={name: self._store.jobs.fetch_many(ids) for name, ids in running.items()},
        )

    def _changed(self) -> Sequence[JobRecord]:
        """Return what changed since the last look, all that is recent at the first one."""
        if not self._after:
            # First where to go on from: what happens in between is told twice, and shown once.
            self._after = self._store.events.last()
            return self._store.jobs.recent(_FIRST)
        self._after, events = self._store.events.follow(self._after, patience=_PATIENCE)
        if any(event.count > 1 for event in events):
            return self._store.jobs.recent(_FIRST)
        return self._store.jobs.fetch_many(dict.fromkeys(one.job for one in events if one.job))


def inspected(host: Host, queues: Sequence[str], running: Sequence[JobRecord]) -> dict[str, Any]:
    """Return what Flower's page of a worker shows, in the shape in which a worker would say it."""
    facts = facts_of(host)
    own = [*queues_of(host.name), *(q for q in queues if not q.startswith("host.") and q != "any")]
    return {
        "stats": {
            "total": {"jobs": host.finished},
            "pool": {"max-concurrency": host.slots, "running": host.active},
            "pid": None,
            "prefetch_count": 0,
            "broker": {},
            "version": host.version,
            "standing": ": ".join(part for part in host.standing if part),
        },
        "active_queues": [_queue(name) for name in own if _is_served(name, host, facts)],
        "registered": [f"relayq.{name}" for name in kinds.names()],
        "active": [
            {
                "id": record.id,
                "name": f"relayq.{record.kind}",
                "args": inert(command_of(record.spec)),
                "kwargs": {},
                "acknowledged": True,
                "worker_pid": None,
                "hostname": worker_name(host.name),
            }
            for record in running
        ],
        "scheduled": [],
        "reserved": [],
        "revoked": [],
        "conf": {name: inert(str(value)) for name, value in host.facts.items()},
        "timestamp": host.seen_at,
    }


def _is_served(queue: str, host: Host, facts: Any) -> bool:
    return queue in queues_of(host.name) or serves(queue, facts)


def _queue(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "routing_key": name,
        "exchange": {"name": "", "type": "direct"},
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": True,
        "alias": None,
        "queue_arguments": None,
        "binding_arguments": None,
    }
