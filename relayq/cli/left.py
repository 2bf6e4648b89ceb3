"""What still runs on this machine when its worker has stopped, and how to end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from relayq import clock, embedded
from relayq.config import Config
from relayq.errors import RelayqError
from relayq.host.attempts import token_of
from relayq.host.process import Shim, attempts, sweep

#: Beyond the grace, how long a killed tree may take to be gone.
_KILL_PATIENCE = 15.0
_DELIVER_PATIENCE = 10.0
_LOOK = 0.05


def running_here(config: Config) -> list[str]:
    """Return the ids of the jobs whose processes run on this machine, worker or not."""
    tokens = [token_of(directory) for directory in _alive(config)]
    return [token.id for token in tokens if token is not None]


def _alive(config: Config) -> list[Path]:
    return [one for one in attempts(config.spool) if Shim(one).is_alive()]


def end(config: Config, *, kill: bool, say: Callable[[str], None]) -> None:
    """Kill the running jobs, or wait for their end; then bring their outcomes to the broker.

    The worker has been stopped, so that no slot that becomes free takes a new job.
    """
    running = _alive(config)
    say(f"{'ending' if kill else 'waiting for'} {', '.join(one.name[:12] for one in running)}")
    if kill:
        _kill(config, running)
    _settle(config, within=_DELIVER_PATIENCE if kill else None, say=say)
    if still := running_here(config):
        raise RelayqError(f"{', '.join(still)} didn't end", hint="relayq down --kill")


def _kill(config: Config, running: list[Path]) -> None:
    grace = config.defaults.grace
    for directory in running:
        Shim(directory).kill("cancel", grace)
    deadline = clock.boottime() + grace + _KILL_PATIENCE
    for directory in running:
        Shim(directory).wait(max(0.0, deadline - clock.boottime()))
        # For a shim that was itself killed on the way.
        sweep(directory)


def _settle(config: Config, *, within: float | None, say: Callable[[str], None]) -> None:
    """Be a worker without slots: it follows what is there to its end, and takes nothing."""
    from relayq.worker import Node

    url = config.broker_url
    if url is None:
        facts = embedded.running_broker(config)
        if facts is None:
            if within is not None:
                # The outcomes are on the disk, for the next worker.
                return
            facts = embedded.start_broker(config)
        url = facts.url
    idle = replace(config, worker=replace(config.worker, max_concurrent=0))
    node = Node(idle, url)
    node.start()
    try:
        deadline = None if within is None else clock.boottime() + within
        while node.runner.attempts() and (deadline is None or clock.boottime() < deadline):
            clock.sleep(_LOOK)
        if node.runner.attempts():
            say("the broker doesn't answer: the next worker here brings it the outcomes")
    finally:
        node.stop()
