"""What one host says to a queued job: whether it takes it, and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord
from relayq.model.placement import MEMORY, constraints_of, facts_of, lacks

#: An idle slot claims every few seconds: a job that waits longer is worth a remark.
_PATIENCE = 15.0
_NAMED = 3
#: The queue of jobs that wait for another one's host.
WITH = "with."

Span = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """What one host says: "takes it", "later", "busy", "not now", "offline" or "no", and why."""

    host: str
    answer: str
    why: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A queued job at an instant, with the jobs before it and what each host runs."""

    record: JobRecord
    now: float
    ahead: int = 0
    running: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: What the jobs are that run on a host, where that counts.
    taken: Mapping[str, Sequence[JobRecord]] = field(default_factory=dict)
    #: How many jobs the whole fleet may run, and whether it does; "" when there is room.
    fleet: str = ""


def answer(host: Host, asked: Asked, span: Span) -> HostAnswer:
    """Return what a host says to a job."""
    said = _never(host, asked.record) or _not_yet(host, asked, span)
    if said is None:
        said = _not_now(host, asked, span) or ("takes it", _takes(host, asked))
    return HostAnswer(host.name, *said)


def _never(host: Host, record: JobRecord) -> tuple[str, str] | None:
    """Say why a host can't take a job from its queue or its wider one, if so."""
    queue = _widest(record)
    if queue.startswith(WITH):
        return "no", f"it is to run where {queue.removeprefix(WITH)} does, which has no host yet"
    missing = lacks(constraints_of(queue), facts_of(host))
    if not missing:
        return None
    if queue.startswith("host."):
        return "no", f"the job is for {queue.removeprefix('host.')} only"
    return "no", ", ".join(missing)


def _widest(record: JobRecord) -> str:
    waits_to_widen = record.overflow_at is not None and record.spec is not None
    return record.spec.queue if waits_to_widen and record.spec is not None else record.queue


def _not_yet(host: Host, asked: Asked, span: Span) -> tuple[str, str] | None:
    """Say when the job overflows to this host, if it waits for another one."""
    record = asked.record
    if record.overflow_at is None or not lacks(constraints_of(record.queue), facts_of(host)):
        return None
    wait = span(max(0.0, record.overflow_at - asked.now))
    return "later", f"it waits for {record.target.removeprefix('->')} first, {wait} more"


def _not_now(host: Host, asked: Asked, span: Span) -> tuple[str, str] | None:
    """Say what stands in the way at this instant, if anything does."""
    if not host.is_online:
        return "offline", f"would take it; {_away(host, asked.now, span)}"
    standing, reason = host.standing
    if not standing.startswith("online"):
        return "not now", f"{standing}{reason and f': {reason}'}"
    if asked.fleet:
        return "busy", asked.fleet
    if host.active >= host.slots:
        ids = asked.running.get(host.name, ())
        named = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
        runs = f": {named}" if named else ""
        return "busy", f"{host.active} of {host.slots} slots busy{runs}"
    return _limited(host, asked)


def _away(host: Host, now: float, span: Span) -> str:
    """Say since when a host is away, and what to do about one that sleeps."""
    heard = f"last heard of {span(now - host.seen_at)} ago"
    state, _ = host.standing
    if state != "asleep":
        return heard
    return f"asleep, {heard}{f' (relayq hosts wake {host.name})' if host.can_be_woken else ''}"


def _limited(host: Host, asked: Asked) -> tuple[str, str] | None:
    """Say which limit or resource of the host is used up."""
    takes = constraints_of(_widest(asked.record)).resources
    why = used_up(host, asked.record.kind, takes, asked.taken.get(host.name, ()))
    return None if why is None else ("busy", why)


def used_up(
    host: Host, kind: str, takes: Mapping[str, int], others: Sequence[JobRecord]
) -> str | None:
    """Say which limit or resource of a host leaves no room for a job beside those it runs."""
    limit = host.facts.get("limits", {}).get(kind)
    same = sum(other.kind == kind for other in others)
    if limit is not None and same >= limit:
        return f"{same} of {limit} {kind} jobs at a time"
    used: Counter[str] = Counter()
    for other in others:
        used.update(other.spec.resources if other.spec else {})
    has = facts_of(host).resources
    for name, count in takes.items():
        left = has.get(name, 0) - used[name]
        if left < count:
            return f"{amount(name, max(0, left))} left of {amount(name, has.get(name, 0))}"
    return None


def amount(name: str, count: int) -> str:
    """Say how much of a resource that is."""
    return f"{count / 1e9:.1f} GB memory" if name == MEMORY else f"{count} {name}"


def _takes(host: Host, asked: Asked) -> str:
    free = f"{host.slots - host.active} of {host.slots} slots free"
    if asked.ahead:
        return f"{free}, after those ahead of it"
    if asked.now - asked.record.created_at > _PATIENCE:
        return f"{free}, and yet it hasn't: is its worker paused or stuck?"
    return f"{free}; by a nudge at once, by itself within 5 s"
