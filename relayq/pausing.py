"""Who asks for a pause: of a job, of a host, of the whole fleet; and who wakes a host.

A pause is kept by the broker, so a host that is away obeys it as soon as it is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from relayq.errors import Conflict, NoSuchHost, NoSuchJob, RelayqError
from relayq.model.waking import address_of, wakers
from relayq.parsing import duration
from relayq.session import Session

if TYPE_CHECKING:
    from relayq.client import Relay


class OfHosts:
    """What a client may ask of whole hosts."""

    relay: Relay

    def pause_host(
        self, host: str, lasts: float | str | None = None, *, reason: str = ""
    ) -> Sequence[str]:
        """Have a host take nothing new and what it runs stand still, until resumed or for so long.

        `lasts` is seconds, or a text such as "2h". Returns the hosts that were told; one that is
        away obeys when it is back.
        """
        return pause(self.relay.session(), host=self._own(host), lasts=lasts, reason=reason)

    def resume_host(self, host: str) -> Sequence[str]:
        """Let a host go on; Conflict when nobody paused it."""
        return resume(self.relay.session(), host=self._own(host))

    def pause_fleet(self, lasts: float | str | None = None, *, reason: str = "") -> Sequence[str]:
        """Pause every host, those included that come later; see `pause_host`."""
        return pause(self.relay.session(), lasts=lasts, reason=reason)

    def resume_fleet(self) -> Sequence[str]:
        """Let all hosts go on but those that were paused by themselves."""
        return resume(self.relay.session())

    def wake_host(self, host: str, via: Sequence[str] = ()) -> Sequence[str]:
        """Have other hosts send the packet that wakes a sleeping one; returns those asked."""
        session, lease = self.relay.session(), self.relay.config.lease
        senders = [self._own(name) for name in via]
        return wake(session, self._own(host), online_within=lease.length, via=senders)

    def _own(self, name: str) -> str:
        """Return the own name of a host that goes by this one."""
        name = self.relay.config.host_called(name)
        hosts = self.relay.session().store.hosts.list(online_within=0.0)
        if any(host.name == name for host in hosts):
            return name
        return next((host.name for host in hosts if name in host.aliases), name)


def pause(
    session: Session,
    *,
    id: str = "",
    host: str = "",
    lasts: float | str | None = None,
    reason: str = "",
) -> Sequence[str]:
    """Pause a job, else a host, else the fleet; returns the hosts that were told."""
    seconds = duration(lasts) if isinstance(lasts, str) else lasts
    if seconds is not None and seconds <= 0:
        raise RelayqError("a pause must last longer than 0 s")
    store = session.store
    word, *rest = store.pauses.pause(
        id=id, host=host, seconds=seconds, reason=reason, who=store.jobs.who
    )
    _check(word, rest, id=id, host=host)
    return rest


def resume(session: Session, *, id: str = "", host: str = "") -> Sequence[str]:
    """Take such a pause back; returns the hosts that were told."""
    store = session.store
    word, *rest = store.pauses.resume(id=id, host=host, who=store.jobs.who)
    if word == "unpaused":
        raise _not_paused(session, id, host)
    _check(word, rest, id=id, host=host)
    return rest


def wake(
    session: Session, host: str, *, online_within: float, via: Sequence[str] = ()
) -> list[str]:
    """Have other hosts of its network wake a host; returns those that were asked."""
    hosts = session.store.hosts.list(online_within=online_within)
    target = next((one for one in hosts if one.name == host), None)
    if target is None:
        raise _no_host(host)
    mac = address_of(target)
    asked = list(wakers(target, hosts, via))
    for name in asked:
        session.store.hosts.ask(name, {"op": "magic", "mac": mac})
    return asked


def _check(word: str, rest: Sequence[str], *, id: str, host: str) -> None:
    match word:
        case "gone":
            raise NoSuchJob(f"no such job: {id}", hint="relayq ps -a")
        case "no_host":
            raise _no_host(host)
        case "unfit":
            raise Conflict(
                f"{id} is {rest[0]}; only a running job can be paused",
                hint=f"relayq show {id}; relayq pause --host HOST keeps a host from taking it",
            )


def _not_paused(session: Session, id: str, host: str) -> RelayqError:
    """Say that nobody paused it, and if it stands still all the same, why."""
    if not id:
        return Conflict(f"nobody paused {host or 'the fleet'}", hint="relayq status")
    why = session.store.jobs.fetch(id).paused
    if why is None:
        return Conflict(f"{id} isn't paused", hint=f"relayq show {id}")
    return Conflict(
        f"nobody paused {id} by itself, but its host did: {why}",
        hint="it goes on by itself, or by relayq resume --host HOST, or --all",
    )


def _no_host(host: str) -> NoSuchHost:
    return NoSuchHost(f"no such host: {host}", hint="relayq hosts")
