"""Workflows: what a step costs beyond its command, and the submit of a large graph.

The same commands run as a chain of steps, and as jobs of which each is submitted when the one
before has ended: by turns, with one worker. The difference is what the broker and the worker do
between two steps, less what a submitter needs to hear of an end and to ask anew.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures
from benchmarks.peers import Relayq
from benchmarks.processes import Redis
from relayq import Relay
from relayq.workflows import Flow, Flows

_PATIENCE = 120.0


def flows(figures: Figures, redis: Redis, *, rounds: int, steps: int, large: int) -> None:
    """Measure a chain of `true` and a submit, with a real worker."""
    redis.connection.flushall()
    with tempfile.TemporaryDirectory(prefix="relayq-bench-") as directory:
        peer = Relayq(redis.url, Path(directory))
        try:
            peer.start()
            relay = peer.relay
            relay.job.run("true").wait(_PATIENCE)
            for _ in range(rounds):
                _chain(figures, relay, steps)
                _submit(figures, relay, large)
        finally:
            peer.close()


def _chain(figures: Figures, relay: Relay, steps: int) -> None:
    what = f"chain of {steps} x true, a step"
    began = time.perf_counter()
    for _ in range(steps):
        relay.job.run("true").wait(_PATIENCE)
    alone = (time.perf_counter() - began) / steps
    made = _made(relay, steps)
    began = time.perf_counter()
    run = made.run()
    run[f"s{steps - 1}"].wait(_PATIENCE)
    chained = (time.perf_counter() - began) / steps
    assert run.wait(_PATIENCE) == "succeeded"
    figures.add(what, "relayq, one after the other", "ms", alone * 1000)
    figures.add(what, "relayq, a workflow", "ms", chained * 1000)


def _made(relay: Relay, steps: int) -> Flow:
    made, before = Flows(relay)("chain"), None
    for number in range(steps):
        before = made.add(f"s{number}", "true", needs=[] if before is None else [before])
    return made


def _submit(figures: Figures, relay: Relay, steps: int) -> None:
    """Submit a graph whose first step waits for a host, so that none of it is started."""
    made = Flows(relay)("large")
    made.add("s0", "true", on="nobody")
    for number in range(1, steps):
        made.add(f"s{number}", "true", needs=[f"s{number // 2}"])
    jobs, sent = relay.session().store.jobs, []
    send = jobs.send

    def counted(*given: Any, **options: Any) -> Any:
        sent.append(1)
        return send(*given, **options)

    jobs.send = counted  # type: ignore[method-assign]
    began = time.perf_counter()
    run = made.run(wait_for_host=True)
    took = time.perf_counter() - began
    del jobs.send
    what = f"submit of {steps:,} steps"
    figures.add(what, "relayq, a workflow", "ms", took * 1000)
    figures.add(f"{what}: round trips", "relayq, a workflow", "calls", len(sent))
    run.cancel()
