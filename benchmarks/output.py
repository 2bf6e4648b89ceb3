"""100 MB of output, followed while it is made: how long, how soon, how much memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.figures import Figures
from benchmarks.peers import Floor, Peer, Rq
from benchmarks.processes import Redis, environment, peak_bytes, python

_MB = 1_000_000
_PATIENCE = 60


def output(
    figures: Figures, redis: Redis, peers: Sequence[type[Peer]], *, rounds: int, size: int
) -> None:
    """Measure a bare pipe, relayq and RQ, each with a client process of its own."""
    for _ in range(rounds):
        for peer in peers:
            if peer is Floor:
                _note(figures, "floor", _client("floor", redis.url, "", size))
            if peer.name not in _READERS or peer is Floor:
                continue
            redis.connection.flushall()
            with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
                _turn(figures, redis, peer(redis.url, Path(directory)), size)


def _turn(figures: Figures, redis: Redis, peer: Peer, size: int) -> None:
    try:
        peer.start()
        for _ in range(3):
            peer.result(peer.submit("echo ready"), _PATIENCE)
        before = _workers_peak(peer)
        told = _client(peer.name, redis.url, str(getattr(peer, "home", "")), size)
        grown = (_workers_peak(peer) - before) / _MB
        figures.add("100 MB: worker's peak over idle", peer.name, "MB", grown)
        _note(figures, peer.name, told)
        peak = float(redis.connection.info("memory")["used_memory"]) / _MB
        figures.add("100 MB: left in Redis", peer.name, "MB", peak)
    finally:
        peer.close()


def _workers_peak(peer: Peer) -> int:
    """Return the most that any one process of the workers has had resident."""
    found = [process for worker in peer.workers for process in _family(worker.pid)]
    return max(peak_bytes(process.pid) for process in found if process.is_running())


def _family(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def _client(name: str, url: str, home: str, size: int) -> dict[str, float]:
    done = subprocess.run(
        python("-m", "benchmarks.output", name, url, home, str(size)),
        env=environment(RELAYQ_BENCHMARK_BROKER=url),
        stdout=subprocess.PIPE,
        check=True,
        timeout=_PATIENCE * 3,
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _note(figures: Figures, who: str, told: dict[str, float]) -> None:
    figures.add("100 MB: to the last byte", who, "s", told["seconds"])
    figures.add("100 MB: to the first byte", who, "ms", told["first"] * 1000)
    figures.add("100 MB: client's peak over idle", who, "MB", told["grown"] / _MB)


def _main(name: str, url: str, home: str, size: int) -> dict[str, float]:
    """Be the client: read it all, keep nothing."""
    line = f"yes 'a line of the output, as long as many' | head -c {size}"
    pieces = _READERS[name](url, home, line)
    next(pieces)
    before = peak_bytes(psutil.Process().pid)
    began = time.perf_counter()
    first, count = 0.0, 0
    for piece in pieces:
        first = first or time.perf_counter() - began
        count += len(piece)
    taken = time.perf_counter() - began
    if count != size:
        raise SystemExit(f"{name}: {count} bytes came, not {size}")
    return {"seconds": taken, "first": first, "grown": peak_bytes(psutil.Process().pid) - before}


def _from_pipe(url: str, home: str, line: str) -> Iterator[bytes]:
    yield b""
    with subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE, bufsize=0) as process:
        read: Callable[[int], bytes] = process.stdout.read if process.stdout else bytes
        while piece := read(65_536):
            yield piece


def _from_relayq(url: str, home: str, line: str) -> Iterator[bytes]:
    from relayq import Relay

    with Relay(url=url, home=home) as relay:
        relay.job.run("echo ready").get()
        yield b""
        for frame in relay.job.run(line, follow=True).logs(follow=True):
            yield frame.data


def _from_rq(url: str, home: str, line: str) -> Iterator[bytes]:
    peer = Rq(url, Path("."))
    peer.result(peer.submit("echo ready"), _PATIENCE)
    yield b""
    yield peer.result(peer.submit(line), _PATIENCE).encode()


_READERS = {"floor": _from_pipe, "relayq": _from_relayq, "rq": _from_rq}


if __name__ == "__main__":
    _, name, url, home, size = sys.argv
    print(json.dumps(_main(name, url, home, int(size))))
