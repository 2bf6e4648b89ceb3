"""What a program may see of the fleet: its hosts, how it stands, what was done."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.model.jobs import JobState

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.hosts import Host
    from relayq.model.stats import Tally
    from relayq.store import Store


class OfFleet:
    """What a client may see of the fleet; all of it is read from the broker, no host is asked."""

    relay: Relay

    def hosts(
        self, *, online: bool | None = None, needs: Iterable[str] | str = ()
    ) -> Sequence[Host]:
        """Return the hosts by name: all, those that are online or not, those that can do all this.

        `needs` are capabilities as `submit` takes them.
        """
        from relayq.model.placement import constrain, facts_of, lacks

        found = [one for one in self.relay.hosts() if online in (None, one.is_online)]
        asked = constrain(needs=needs)
        return [one for one in found if not lacks(asked, facts_of(one))]

    def pick_host(
        self, *, strategy: str = "least-loaded", kind: str = "run_command", **asked: Any
    ) -> str | None:
        """Return the host that would get a job now, by a strategy that chooses early.

        `asked` are the constraints of `submit` (`on`, `needs`, `excluded`, `resources`, `prefer`).
        None when those hosts that could take it don't take work now; Unplaceable when no known host
        ever could. Nothing is submitted, or kept free.
        """
        from relayq.model.placement import facts_of, own_names, place
        from relayq.specs import constraints_for

        known = [facts_of(host) for host in self.relay.hosts()]
        constraints = own_names(constraints_for(self.relay.config, kind, asked), known)
        return place(constraints, known, strategy, randomness=random.random()).host

    def health(self) -> dict[str, Any]:
        """Return how the fleet stands.

        `{"idle_workers", "busy_workers", "offline_workers", "running_jobs", "queued_jobs",
        "slots", "avg_load_factor"}`; the last is the mean of used slots to slots of those online,
        None without any.
        """
        hosts = self.relay.hosts()
        counts = self.relay.session().store.jobs.count()
        online = [host for host in hosts if host.is_online]
        factors = [host.active / host.slots for host in online if host.slots]
        return {
            "idle_workers": sum(not host.active for host in online),
            "busy_workers": sum(bool(host.active) for host in online),
            "offline_workers": len(hosts) - len(online),
            "running_jobs": counts[JobState.RUNNING],
            "queued_jobs": counts[JobState.QUEUED],
            "slots": sum(host.slots for host in online),
            "avg_load_factor": sum(factors) / len(factors) if factors else None,
        }

    def stats(self, *, by: str = "host", days: int = 7) -> Mapping[str, Tally]:
        """Return what was done in the last days of UTC (1 is today), by host, kind, agent or day.

        A host's former names are counted with it. A `Tally` has the counts of attempts
        (`succeeded`, `failed`, ...), `success_rate`, and `mean_run` and `mean_wait` in seconds.
        """
        from relayq.errors import RelayqError
        from relayq.model.stats import GROUPS, grouped

        if by not in GROUPS:
            raise RelayqError(f"stats are by {', '.join(GROUPS)}, not by {by!r}")
        store, now = self.relay.session().store, clock.now()
        if by == "day":
            return store.stats.daily(days, now=now)
        # No host has to be up for what was done.
        hosts = store.hosts.list(online_within=self.relay.config.lease.length)
        names = {alias: host.name for host in hosts for alias in host.aliases}
        return grouped(store.stats.by_day(days, now=now), by, names)


def worker_status_of(store: Store, online_within: float) -> dict[str, Any]:
    """Return what `relayq.client.worker_status` does."""
    hosts = store.hosts.list(online_within=online_within)
    counts = store.jobs.count()
    return {
        "online": any(host.is_online for host in hosts),
        "total_workers": sum(host.is_online for host in hosts),
        "total_active": sum(host.active for host in hosts),
        "total_queued": counts[JobState.QUEUED],
        "workers": {
            host.name: {
                "type": host.os,
                "active_jobs": host.active,
                "queued_jobs": host.queued,
                "total_jobs": host.active + host.finished,
                "online": host.is_online,
                "slots": host.slots,
                "seen_at": host.seen_at,
                "version": host.version,
                **host.facts,
            }
            for host in hosts
        },
    }
