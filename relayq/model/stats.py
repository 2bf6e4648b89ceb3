"""What the fleet did: counts of attempts by host and kind, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

DAY, HOUR = 86_400, 3600
#: What there can be a row for.
GROUPS = ("host", "kind", "agent", "day")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many attempts ended how; `run_time` and `wait_time` are sums in seconds.

    `timed` attempts have a run time, `waited` ones a wait: from their first queueing to the claim.
    Cost (as agents estimate it) and tokens are those of agents' attempts.
    """

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    needs_human: int = 0
    retried: int = 0
    lost: int = 0
    timed: int = 0
    run_time: float = 0.0
    waited: int = 0
    wait_time: float = 0.0
    cost_usd: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def success_rate(self) -> float | None:
        """The part of the attempts that succeeded, of those that succeeded, failed or were lost."""
        ended = self.succeeded + self.failed + self.retried + self.lost
        return self.succeeded / ended if ended else None

    @property
    def mean_run(self) -> float | None:
        """Seconds that an attempt ran, on the average."""
        return self.run_time / self.timed if self.timed else None

    @property
    def mean_wait(self) -> float | None:
        """Seconds that a job was queued before its first attempt, on the average."""
        return self.wait_time / self.waited if self.waited else None

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(*(getattr(self, name) + getattr(other, name) for name in _COUNTS))


def date_of(number: int) -> str:
    """Return the date of a day that is counted from 1970, in UTC."""
    return datetime.fromtimestamp(number * DAY, UTC).strftime("%Y-%m-%d")


_COUNTS = tuple(Tally.__dataclass_fields__)
#: What is counted in whole parts of its unit: its name, and how many of them make one.
_PARTS = {
    "run_ms": ("run_time", 1000),
    "wait_ms": ("wait_time", 1000),
    "cost_micro": ("cost_usd", 1_000_000),
}


def tallies(rows: Iterable[tuple[str, str, str, int]]) -> dict[tuple[str, str], Tally]:
    """Return the sums by host and kind of rows of host, kind, what and how many.

    Of agents' jobs the kind is followed by the agent: `run_agent claude`.
    """
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for host, kind, what, count in rows:
        own = sums.setdefault((host, kind), {})
        name, parts = _PARTS.get(what, (what, 1))
        own[name] = own.get(name, 0) + (count / parts if parts > 1 else count)
    return {
        key: Tally(**{name: own[name] for name in _COUNTS if name in own})  # type: ignore[arg-type]
        for key, own in sums.items()
    }


def grouped(
    found: Mapping[tuple[str, str], Tally], by: str, names: Mapping[str, str]
) -> dict[str, Tally]:
    """Return the sums by `host`, `kind` or `agent`; only agents' jobs have an agent.

    `names` are the hosts' present names by former ones.
    """
    groups: dict[str, Tally] = {}
    for (host, words), tally in found.items():
        kind, _, agent = words.partition(" ")
        name = {"host": names.get(host, host), "kind": kind, "agent": agent}[by]
        if not name:
            continue
        groups[name] = groups.get(name, Tally()).plus(tally)
    return dict(sorted(groups.items()))
