"""Which of several hosts that could take a job gets it, where one is chosen at submit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate
from typing import Protocol, TypeVar

from relayq.errors import RelayqError


class Strategy(StrEnum):
    """How a job comes to its host; all but the first choose the host when it is submitted."""

    PULL = "pull"  #: the first host that can and has room takes it
    LEAST_LOADED = "least-loaded"  #: the host with the fewest jobs for its slots
    ROUND_ROBIN = "round-robin"  #: one host after the other, by name
    WEIGHTED = "weighted"  #: by chance, in proportion to the hosts' weights
    RANDOM = "random"  #: by chance, each host alike
    CAPABILITY_MATCH = "capability-match"  #: the host that can do the least else, while it has room


def strategy_of(text: str) -> Strategy:
    """Return the strategy of this name."""
    try:
        return Strategy(text)
    except ValueError as error:
        known = ", ".join(Strategy)
        raise RelayqError(f"no such strategy: {text}", hint=f"strategies: {known}") from error


class Choosable(Protocol):
    """What a choice asks of a host."""

    @property
    def name(self) -> str:
        """Its name, which orders hosts that are alike."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do."""

    @property
    def weight(self) -> float:
        """Its share of the jobs, beside that of others."""

    @property
    def load(self) -> float:
        """Its jobs, running and waiting, by slot."""


H = TypeVar("H", bound=Choosable)


def choose(hosts: Sequence[H], strategy: Strategy, *, randomness: float, cursor: int) -> H | None:
    """Return the host that a strategy takes; None for no host, and where none is chosen early."""
    if not hosts or strategy is Strategy.PULL:
        return None
    if strategy is Strategy.LEAST_LOADED:
        loads = [host.load for host in hosts]
        least = min(loads)
        alike = [host for host, load in zip(hosts, loads, strict=True) if load == least]
        # By chance: else all who submit at one instant would choose the same host.
        return _at(alike, randomness)
    if strategy is Strategy.ROUND_ROBIN:
        return sorted(hosts, key=lambda host: host.name)[cursor % len(hosts)]
    if strategy is Strategy.WEIGHTED:
        return _weighted(hosts, randomness)
    if strategy is Strategy.RANDOM:
        return _at(hosts, randomness)
    return _fitting(hosts)


def _at(hosts: Sequence[H], randomness: float) -> H:
    return hosts[min(int(randomness * len(hosts)), len(hosts) - 1)]


def _weighted(hosts: Sequence[H], randomness: float) -> H:
    """Return a host by its weight; where none has any, all weigh the same."""
    bounds = list(accumulate(host.weight for host in hosts))
    if not bounds[-1]:
        return _at(hosts, randomness)
    # To the right of equal bounds: a host without weight is never chosen.
    return hosts[bisect_right(bounds, randomness * bounds[-1], hi=len(hosts) - 1)]


def _fitting(hosts: Sequence[H]) -> H:
    """Return of the hosts with room, else of the least loaded, the one that can do the least."""
    least = min(host.load for host in hosts)
    with_room = [host for host in hosts if host.load < 1 or host.load == least]
    return min(with_room, key=lambda host: (len(host.capabilities), host.name))
