"""A broker that is a network away: how many round trips a job takes from submit to result."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.figures import Figures
from benchmarks.peers import PEERS, Floor, Peer
from benchmarks.processes import BROKER, Redis, end, environment, free_port, launch, python
from relayq import clock

_PATIENCE = 60.0


def away(
    figures: Figures, redis: Redis, peers: Sequence[type[Peer]], *, round_trip: float, jobs: int
) -> None:
    """Measure jobs one by one, worker and client both far from the broker."""
    for kind in peers:
        if kind is Floor:
            continue
        near = _median(kind.name, redis, redis.url, jobs)
        with _far(redis, round_trip) as url:
            far = _median(kind.name, redis, url, jobs)
        what = f"echo hi, broker {round_trip * 1000:g} ms away"
        figures.add(what, kind.name, "round trips", (far - near) / round_trip)
        figures.add(f"{what}: p50", kind.name, "ms", far * 1000)


def _median(name: str, redis: Redis, url: str, jobs: int) -> float:
    redis.connection.flushall()
    # A process of its own: the peers' modules take the broker's place when they are imported.
    done = subprocess.run(
        python("-m", "benchmarks.away", name, url, str(jobs)),
        env=environment(**{BROKER: url}),
        stdout=subprocess.PIPE,
        check=True,
        timeout=_PATIENCE * 2,
    )
    return float(done.stdout)


@contextmanager
def _far(redis: Redis, round_trip: float) -> Iterator[str]:
    """Put the distance before Redis."""
    port = free_port()
    argv = python("-m", "benchmarks.distance", str(port), str(redis.port), str(round_trip / 2))
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
        distance = launch(argv, Path(directory, "log"))
        clock.sleep(0.5)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            end(distance)


def _main(name: str, url: str, jobs: int) -> float:
    """Be worker and client; return the median of as many jobs, in seconds."""
    kind = next(peer for peer in PEERS if peer.name == name)
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
        peer = kind(url, Path(directory))
        try:
            peer.start()
            for _ in range(3):
                peer.result(peer.submit("echo warm"), _PATIENCE)
            taken = []
            for _ in range(jobs):
                began = time.perf_counter()
                peer.result(peer.submit("echo hi"), _PATIENCE)
                taken.append(time.perf_counter() - began)
            return median(taken)
        finally:
            peer.close()


if __name__ == "__main__":
    print(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
