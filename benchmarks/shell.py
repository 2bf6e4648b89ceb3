"""The command line, whole processes, beside an empty Python and the imports that submit needs."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.peers import Relayq
from benchmarks.processes import Redis, python

_RELAYQ = python("-m", "relayq")


def shell(figures: Figures, redis: Redis, *, rounds: int, listed: int) -> None:
    """Run each command once a round, on a fleet that is up and has `listed` jobs."""
    redis.connection.flushall()
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
        peer = Relayq(redis.url, Path(directory))
        try:
            _measure(figures, peer, rounds, listed)
        finally:
            peer.close()


def _measure(figures: Figures, peer: Relayq, rounds: int, listed: int) -> None:
    # They come after a job that waits for an hour: none of them keeps the worker from the others.
    blocker = peer.relay.job.run("true", delay=3600)
    peer.relay.job.submit_many([{"cmd": f"echo {i}", "after": [blocker.id]} for i in range(listed)])
    peer.start()
    peer.result(peer.submit("echo ready"), 30)
    commands = {
        "sh -c 'echo hi'": ["sh", "-c", "echo hi"],
        "python -c pass": python("-c", "pass"),
        "python -c 'import click, yaml, redis'": python("-c", "import click, yaml, redis"),
        "relayq --help": [*_RELAYQ, "--help"],
        "relayq submit true": [*_RELAYQ, "submit", "true"],
        "relayq run 'echo hi'": [*_RELAYQ, "run", "echo hi"],
        f"relayq ps, {listed:,} jobs": [*_RELAYQ, "ps"],
        f"relayq ps --all, {listed:,} jobs": [*_RELAYQ, "ps", "--all"],
        "relayq status": [*_RELAYQ, "status"],
    }
    env = peer.environment()
    for _ in range(rounds):
        for name, argv in commands.items():
            began = time.perf_counter()
            subprocess.run(
                argv,
                env=env,
                cwd=peer.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=60,
            )
            taken = (time.perf_counter() - began) * 1000
            figures.add("whole process", name, "ms", taken)
