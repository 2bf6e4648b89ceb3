"""What an idle worker costs: relayq's and the peers', with their two slots; relayq's with four."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.figures import Figures
from benchmarks.peers import Floor, Peer, Relayq
from benchmarks.processes import Redis, cpu_seconds
from relayq import clock


def idle(figures: Figures, redis: Redis, peers: Sequence[type[Peer]], *, seconds: float) -> None:
    """Let each worker run a job, then do nothing for a while."""
    for peer in peers:
        if peer is Floor:
            continue
        redis.connection.flushall()
        with tempfile.TemporaryDirectory(prefix="relayq-bench-") as name:
            directory = Path(name)
            if peer is Relayq:
                _turn(figures, Relayq(redis.url, directory, slots=4), seconds)
            else:
                _turn(figures, peer(redis.url, directory), seconds)


def _turn(figures: Figures, peer: Peer, seconds: float) -> None:
    try:
        peer.start()
        for _ in range(8):
            peer.result(peer.submit("echo ready"), 30)
        clock.sleep(1.0)
        pids = [worker.pid for worker in peer.workers]
        before, began = cpu_seconds(pids), time.perf_counter()
        clock.sleep(seconds)
        share = (cpu_seconds(pids) - before) / (time.perf_counter() - began) * 100
        figures.add("idle: CPU", peer.name, "% of a core", share)
        sizes = [_resident(psutil.Process(pid)) for pid in pids]
        figures.add("idle: resident, worker", peer.name, "MB", sum(sizes))
        helpers = [c for pid in pids for c in psutil.Process(pid).children(recursive=True)]
        if helpers:
            total = sum(_resident(process) for process in helpers)
            figures.add("idle: resident, its helpers", peer.name, "MB", total)
        figures.add("idle: processes", peer.name, "", len(pids) + len(helpers))
    finally:
        peer.close()


def _resident(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1_000_000
