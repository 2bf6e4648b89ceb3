"""What may be wrong with the hosts: judged from their registrations and heartbeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relayq.doctor.findings import Finding, ok, problem, warning
from relayq.model.hosts import Host

_SKEW = 2.0
#: A host that wasn't heard of for so long is no surprise any more.
_LONG_GONE = 7 * 86_400.0


def examine_hosts(
    hosts: Sequence[Host], *, version: str, now: float, here: str
) -> Iterator[Finding]:
    """Judge which hosts are online, their versions and their clocks; `now` is the broker's."""
    online = [host for host in hosts if host.is_online]
    if not online:
        yield problem(here, "no host is online: nothing runs any job", "relayq up, where it should")
    else:
        yield ok("all", f"{len(online)} of {len(hosts)} hosts online")
    for host in hosts:
        if not host.is_online and now - host.seen_at < _LONG_GONE:
            waits = f", and {host.queued} jobs wait for it" if host.queued else ""
            yield warning(
                host.name,
                f"offline, last heard of {_ago(now - host.seen_at)} ago{waits}",
                f"relayq worker start, on {host.name}",
            )
    yield from _versions(online, version, here)
    yield from _clocks(online)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _versions(online: Sequence[Host], version: str, here: str) -> Iterator[Finding]:
    others = [host for host in online if host.version != version]
    for host in others:
        yield warning(
            host.name,
            f"relayq {host.version or '?'} there, {version} on {here}",
            "pip install -U relayq on the older one, then relayq worker stop and relayq up",
        )
    if online and not others:
        yield ok("all", f"relayq {version} everywhere")


def _clocks(online: Sequence[Host]) -> Iterator[Finding]:
    offsets = {
        host.name: float(host.facts["clock"]) - host.seen_at
        for host in online
        if "clock" in host.facts
    }
    off = {name: offset for name, offset in offsets.items() if abs(offset) > _SKEW}
    for name, offset in off.items():
        which = "ahead of" if offset > 0 else "behind"
        yield warning(
            name,
            f"its clock is {abs(offset):.1f} s {which} the broker's",
            f"timedatectl set-ntp true, on {name}",
        )
    if offsets and not off:
        widest = max(map(abs, offsets.values()))
        yield ok("all", f"clocks of the hosts within {widest * 1000:.0f} ms of the broker's")
