"""All peers in one run: rounds in which each has its turn, alone with Redis and this client."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from benchmarks.figures import Figures
from benchmarks.peers import Peer
from benchmarks.processes import Redis, cpu_seconds

_PATIENCE = 30.0


def contest(
    figures: Figures,
    redis: Redis,
    peers: Sequence[type[Peer]],
    *,
    rounds: int,
    jobs: int,
    seconds: float,
) -> None:
    """Measure every peer; no load is larger than `jobs` or `seconds`."""
    for _ in range(rounds):
        for peer in peers:
            redis.connection.flushall()
            with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
                _turn(figures, redis, peer(redis.url, Path(directory)), jobs, seconds)


def _turn(figures: Figures, redis: Redis, peer: Peer, jobs: int, seconds: float) -> None:
    try:
        began = time.perf_counter()
        first = peer.submit("echo ready")
        peer.start()
        _expect("ready", peer.result(first, _PATIENCE))
        if peer.workers:
            figures.add("launch to first result", peer.name, "s", time.perf_counter() - began)
        for _ in range(10):
            _expect("warm", peer.result(peer.submit("echo warm"), _PATIENCE))
        _latency(figures, peer, jobs // 2, seconds)
        _throughput(figures, redis, peer, jobs, seconds)
    finally:
        peer.close()


def _latency(figures: Figures, peer: Peer, jobs: int, seconds: float) -> None:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 2 or (len(taken) < jobs and time.perf_counter() < end):
        began = time.perf_counter()
        _expect("hi", peer.result(peer.submit("echo hi"), _PATIENCE))
        taken.append((time.perf_counter() - began) * 1000)
    cuts = quantiles(taken, n=100, method="inclusive")
    figures.add("echo hi: submit to result, p50", peer.name, "ms", cuts[49])
    figures.add("echo hi: submit to result, p99", peer.name, "ms", cuts[98])


def _throughput(figures: Figures, redis: Redis, peer: Peer, jobs: int, seconds: float) -> None:
    """Queue all, then take the results in order until the time is over."""
    pids = [worker.pid for worker in peer.workers]
    costs = [cpu_seconds(pids), own_cpu(), cpu_seconds([redis.process.pid])]
    began = time.perf_counter()
    waiting = peer.submit_many(["true"] * jobs)
    if peer.workers:
        rate = jobs / (time.perf_counter() - began)
        figures.add("true: submitting", peer.name, "jobs/s", rate)
    done = 0
    for one in waiting:
        peer.result(one, _PATIENCE)
        done += 1
        if time.perf_counter() - began > seconds:
            break
    rate = done / (time.perf_counter() - began)
    figures.add("true: throughput, 2 slots", peer.name, "jobs/s", rate)
    after = [cpu_seconds(pids), own_cpu(), cpu_seconds([redis.process.pid])]
    spent = [(end - start) * 1000 / done for start, end in zip(costs, after, strict=True)]
    figures.add("CPU a job", peer.name, "ms", sum(spent))
    for part, cost in zip(("worker and job", "client", "Redis"), spent, strict=True):
        figures.add(f"CPU a job: {part}", peer.name, "ms", cost)


def own_cpu() -> float:
    """Return this process's CPU time, with that of the commands that it ran itself."""
    own = time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + children.ru_utime + children.ru_stime


def _expect(text: str, printed: str) -> None:
    if printed.strip() != text:
        raise RuntimeError(f"a job printed {printed!r}, not {text!r}")
