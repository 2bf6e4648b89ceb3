"""An agent's run in this process: the runner that hosts start for a job, without the job."""

from __future__ import annotations

import os
import pwd
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from relayq import clock
from relayq.agents import adapters, invocation, policy
from relayq.agents.answers import Answer, ErrorClass
from relayq.config import Config
from relayq.errors import RelayqError
from relayq.host.agents import EXIT_CODES, Runner
from relayq.host.program import Signals
from relayq.kinds import HostFacts, find
from relayq.kinds.agent import order_of
from relayq.model.jobs import new_id

#: What passes by itself, and for how long somebody who sits here has the patience.
_PASSING = frozenset({ErrorClass.RATE_LIMITED, ErrorClass.OVERLOADED, ErrorClass.TRANSIENT})
_LONGEST_WAIT = 150.0
#: What the runner takes for itself while it runs.
_TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run_here(
    config: Config,
    asked: Mapping[str, Any],
    *,
    patience: float | None = None,
    on_wait: Callable[[Answer, float], None] | None = None,
) -> tuple[Answer, int]:
    """Run an agent here, its transcript on standard output; returns its answer and an exit code.

    It is ended after `patience` seconds of silence. With `on_wait`, which is told each wait, what
    its API refuses for a while is tried again in the same session, where that is soon. Fallbacks
    don't count.
    """
    payload = find("run_agent").read_payload({"cwd": os.getcwd(), **asked})
    facts = HostFacts(
        name=config.worker.name,
        home=os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir,
        state_dir=str(config.home / "agents"),
        is_root=os.geteuid() == 0,
        agents=config.agents,
    )
    order = order_of(payload, facts)
    adapter = adapters.Adapter.from_dict(order.adapter)
    invocation.check(adapter, order)
    if facts.is_root and invocation.refuses_root(adapter, order):
        raise RelayqError(
            f"{order.agent} with full permission doesn't run as root",
            hint=f"another user, or in a sandbox only: agents.{order.agent}.allow_root_sandbox",
        )
    # Who sits here may have a key in their own shell only.
    own = {name: os.environ[name] for name in adapter.env_pass if name in os.environ}
    order = replace(order, env={**own, **order.env}, job_id=new_id())
    if patience is not None:
        order = replace(order, limits=replace(order.limits, stall=patience))
    os.makedirs(order.state_dir, mode=0o700, exist_ok=True)
    failures = 0
    while True:
        with _own_signals() as signals:
            answer = Runner(order, dict(os.environ), signals).run()
        wait = _wait(answer, failures) if on_wait is not None else None
        if on_wait is None or wait is None:
            return answer, EXIT_CODES.get(answer.status, 1)
        on_wait(answer, wait)
        clock.sleep(wait)
        failures += 1
        order = replace(order, attempt=order.attempt + 1)


def _wait(answer: Answer, failures: int) -> float | None:
    """Return the seconds after which an agent is asked again, None if that isn't worth it here."""
    if answer.error_class not in _PASSING:
        return None
    decision = policy.decide(
        answer, failures=failures, fallbacks=False, jitter=random.random(), now=clock.now()
    )
    if decision.delay is None or decision.delay > _LONGEST_WAIT:
        return None
    return decision.delay


@contextmanager
def _own_signals() -> Iterator[Signals]:
    """Have what ends this command end the agent's program, and afterwards this command again."""
    before = {number: signal.getsignal(number) for number in _TAKEN}
    try:
        yield Signals()
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
