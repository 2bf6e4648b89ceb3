"""Many queued jobs: how fast they are queued, what one costs, and whether claims get slower."""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.peers import Relayq
from benchmarks.processes import Redis
from relayq import clock
from relayq.model.hosts import queues_of
from relayq.store import connect
from relayq.store.leases import Claim, Registration

_CLAIMS = 300
_LEASE = 60.0


def backlog(figures: Figures, redis: Redis, *, rounds: int, depths: tuple[int, int]) -> None:
    """Queue jobs without a worker, then claim some at each depth."""
    for _ in range(rounds):
        for depth in depths:
            redis.connection.flushall()
            with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
                peer = Relayq(redis.url, Path(directory))
                try:
                    _fill(figures, redis, peer, depth)
                    _claim(figures, redis, depth, peer.relay.session().signer.key_id)
                finally:
                    peer.close()


def _fill(figures: Figures, redis: Redis, peer: Relayq, depth: int) -> None:
    peer.submit("echo hi").cancel()
    before = redis.used_bytes()
    began = time.perf_counter()
    for start in range(0, depth, 10_000):
        peer.submit_many(["echo hi"] * min(10_000, depth - start))
    taken = time.perf_counter() - began
    figures.add(f"bulk submit of {depth:,}", peer.name, "jobs/s", depth / taken)
    cost = (redis.used_bytes() - before) / depth
    figures.add(f"a queued job in Redis, {depth:,} deep", peer.name, "B", cost)


def _claim(figures: Figures, redis: Redis, depth: int, key_id: str) -> None:
    store = connect(redis.url, patience=5.0)
    who = Registration(host="bench", install="bench", boot=clock.boot_id(), session="1")
    try:
        store.hosts.register(who, lease=_LEASE, key_id=key_id, slots=2, version="", facts={})
        queues = queues_of(who.host)
        began = time.perf_counter()
        for _ in range(min(_CLAIMS, depth)):
            claim = store.leases.claim(who, queues, uid=secrets.token_hex(6), lease=_LEASE)
            if not isinstance(claim, Claim):
                raise RuntimeError(f"nothing to claim: {claim}")
        rate = min(_CLAIMS, depth) / (time.perf_counter() - began)
        figures.add(f"claims, {depth:,} queued", "relayq", "/s", rate)
    finally:
        store.close()
