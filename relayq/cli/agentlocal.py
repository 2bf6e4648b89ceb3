"""An agent's run in this process: the runner that hosts start for a job, without the job."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from relayq.agents import adapters, invocation
from relayq.agents.answers import Answer
from relayq.config import Config
from relayq.errors import RelayqError
from relayq.host.agents import EXIT_CODES, Runner
from relayq.host.program import Signals
from relayq.kinds import HostFacts, find
from relayq.kinds.agent import order_of
from relayq.model.jobs import new_id

#: What the runner takes for itself while it runs.
_TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run_here(
    config: Config, asked: Mapping[str, Any], *, patience: float | None = None
) -> tuple[Answer, int]:
    """Run an agent here, its transcript on standard output; returns its answer and an exit code.

    It is ended after `patience` seconds of silence. Fallbacks don't count: nothing is tried again
    by itself.
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
    with _own_signals() as signals:
        answer = Runner(order, dict(os.environ), signals).run()
    return answer, EXIT_CODES.get(answer.status, 1)


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
