"""What may be wrong with a broker on several machines: its sentinels, its replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from relayq.doctor.findings import Finding, ok, problem, warning
from relayq.store.sentinels import SentinelUrl, is_sentinel_url

_PATIENCE = 2.0


def examine_sentinels(where: str, url: str | None, replicas: int) -> Iterator[Finding]:
    """Ask each sentinel, and judge how many replicas the primary has; nothing elsewhere."""
    if url is None or not is_sentinel_url(url):
        return
    broker = SentinelUrl.parse(url)
    yield from judge_sentinels(where, broker.primaries(_PATIENCE))
    yield from judge_replicas(where, replicas, needed=broker.replicas)


def judge_sentinels(where: str, named: Mapping[str, str | None]) -> Iterator[Finding]:
    """Judge whom the sentinels name, by their addresses; None for one that doesn't answer."""
    votes = Counter(primary for primary in named.values() if primary is not None)
    silent = [address for address, primary in named.items() if primary is None]
    enough = len(named) // 2 + 1
    for address in silent:
        yield warning(
            where, f"the sentinel {address} doesn't answer", "is it up? systemctl status, there"
        )
    if len(named) < 3:
        yield warning(
            where,
            f"{len(named)} sentinels can't agree that a machine is gone",
            "3 of them, on 3 machines: relayq broker sentinels",
        )
    if len(votes) > 1:
        yield warning(where, f"the sentinels disagree who is the primary: {', '.join(votes)}")
    elif sum(votes.values()) < enough:
        yield problem(
            where,
            f"{sum(votes.values())} of {len(named)} sentinels answer: too few for a failover",
            "start the others",
        )
    else:
        yield ok(where, f"{sum(votes.values())} of {len(named)} sentinels name {next(iter(votes))}")


def judge_replicas(where: str, replicas: int, *, needed: int) -> Iterator[Finding]:
    """Judge the number of replicas that are up to date, of which so many must have each answer."""
    has = "1 replica has" if replicas == 1 else f"{replicas} replicas have"
    text = f"{has} what the primary has"
    mend = "start Redis on the machines that are down: redis-cli info replication, at the primary"
    if replicas < needed:
        yield problem(where, f"{text}, and {needed} must: it takes no new work", mend)
    elif not needed:
        yield warning(
            where,
            f"{text}, and no answer waits for one: a failover takes back what was answered last",
            "replicas=1 in broker.url",
        )
    elif replicas == needed:
        yield warning(where, f"{text}, and {needed} must: no further machine may be lost", mend)
    else:
        yield ok(where, f"{text}, of which {needed} must")
