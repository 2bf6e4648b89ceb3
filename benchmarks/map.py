"""A map of short commands beside plain Celery, which gets each of them as a message of its own.

relayq is measured as somebody types it, a whole process from its start to its end; Celery's client
is this process, warm, so that only its messages, its workers and its results count.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.contest import own_cpu
from benchmarks.figures import Figures
from benchmarks.peers import SLOTS, CeleryThreads, Peer, Relayq
from benchmarks.processes import Redis, cpu_seconds, python

_PATIENCE = 120.0
#: What is typed, what it is called, and which part of the items it gets: a job each takes long.
_TYPED = (("relayq map", (), 1), ("relayq map --batch off", ("--batch", "off"), 10))


class CeleryPrefork(CeleryThreads):
    """Plain Celery with its usual pool, of processes."""

    name = "celery, prefork"

    def commands(self) -> Sequence[Sequence[str]]:
        """Return the one worker's command line."""
        app = "benchmarks.peers.on_celery"
        options = ["-P", "prefork", "-c", str(SLOTS), "-l", "WARNING"]
        return [python("-m", "celery", "-A", app, "worker", *options)]


def mapped(
    figures: Figures, redis: Redis, *, rounds: int, items: int, only: Sequence[str] | None
) -> None:
    """Run `true` for so many inputs by each, in turn."""
    known: tuple[type[Peer], ...] = (Relayq, CeleryThreads, CeleryPrefork)
    peers = [peer for peer in known if not only or peer.name in only]
    for _ in range(rounds):
        for peer in peers:
            redis.connection.flushall()
            with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
                _turn(figures, redis, peer(redis.url, Path(directory)), items)


def _turn(figures: Figures, redis: Redis, peer: Peer, items: int) -> None:
    try:
        peer.start()
        peer.result(peer.submit("echo ready"), _PATIENCE)
        if isinstance(peer, Relayq):
            for name, options, part in _TYPED:
                run = partial(_typed, peer, options)
                _measure(figures, redis, peer, name, items, max(1, items // part), run)
        else:
            _measure(figures, redis, peer, peer.name, items, items, partial(_sent, peer))
    finally:
        peer.close()


def _measure(
    figures: Figures,
    redis: Redis,
    peer: Peer,
    name: str,
    items: int,
    count: int,
    run: Callable[[int], None],
) -> None:
    """Run so many of the items, and note how fast that was and what CPU time it took."""
    pids = [*(worker.pid for worker in peer.workers), redis.process.pid]
    spent, began = cpu_seconds(pids) + own_cpu(), time.perf_counter()
    run(count)
    took = time.perf_counter() - began
    spent = cpu_seconds(pids) + own_cpu() - spent
    figures.add(f"map of {items:,} x true", name, "items/s", count / took)
    figures.add("map: CPU an item, all of it", name, "ms", spent / count * 1000)


def _typed(peer: Relayq, options: Sequence[str], items: int) -> None:
    inputs = [str(number) for number in range(items)]
    subprocess.run(
        [*python("-m", "relayq"), "map", *options, "true", ":::", *inputs],
        env=peer.environment(),
        cwd=peer.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=10 * _PATIENCE,
    )


def _sent(peer: Peer, items: int) -> None:
    for one in peer.submit_many([f"true {number}" for number in range(items)]):
        peer.result(one, _PATIENCE)
