"""This machine's worker: start it in the foreground, run what is queued once, stop it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from relayq.cli.groups import Group
from relayq.cli.options import json_option
from relayq.cli.services import answer, load_config, remark
from relayq.cli.texts import number_of

if TYPE_CHECKING:
    from relayq.config import Config

_LOOK = 0.1


@click.group(
    cls=Group,
    elsewhere={
        "install": "relayq.cli.installs:worker_install",
        "uninstall": "relayq.cli.installs:worker_uninstall",
        "restart": "relayq.cli.installs:worker_restart",
        "upgrade": "relayq.cli.upgrades:upgrade_worker",
        "status": "relayq.cli.installed:worker_status",
        "logs": "relayq.cli.installed:worker_logs",
    },
)
def worker() -> None:
    """Start and stop this machine's worker, also as a service."""


@worker.command("start")
@click.option("--service", "is_service", is_flag=True, hidden=True)
def worker_start(is_service: bool) -> None:
    """Be this machine's worker, in the foreground, until told to stop."""
    from relayq import embedded
    from relayq import worker as celery_worker

    config = load_config()
    celery_worker.set_up_logging(config, is_service=is_service)
    code = celery_worker.start(config, is_service=is_service)
    embedded.renew_if_asked(config)
    sys.exit(code)


@worker.command("once")
@json_option
def worker_once(as_json: bool) -> None:
    """Run what is queued for this machine until nothing is left."""
    from relayq import worker as celery_worker

    config = load_config()
    number = celery_worker.once(config, celery_worker.url_of(config))
    if as_json:
        answer("", as_json, {"ran": number})
    else:
        remark(f"ran {number_of(number, 'job')}")


@worker.command("stop")
@click.option("--drain", is_flag=True, help="First wait for the jobs that run; start nothing new.")
@click.option("--hand-back", is_flag=True, help="End them and give them back to their queues.")
@json_option
def worker_stop(drain: bool, hand_back: bool, as_json: bool) -> None:
    """Stop the worker; jobs that run go on, and the next worker takes them over.

    A job that was handed back begins anew, on another host or on this one when it is back; that
    doesn't count as a failed or lost attempt.
    """
    from relayq import embedded
    from relayq.cli import left
    from relayq.embedded import managed
    from relayq.model.units import Role

    if drain and hand_back:
        raise click.UsageError("--drain and --hand-back exclude each other")
    config = load_config()
    if drain or hand_back:
        how = embedded.DRAIN if drain else embedded.HAND_BACK
        had_one = _stop_and_wait(config, how)
        if managed.installed(config, Role.WORKER) is not None:
            # launchd may have started it again.
            embedded.stop_worker(config)
    else:
        had_one = embedded.stop_worker(config)
    if not had_one:
        answer("no worker ran here", as_json, {"stopped": [], "running": []})
        return
    running = left.running_here(config)
    go_on = (
        f"; {number_of(len(running), 'job')} left running (relayq up takes over)" if running else ""
    )
    answer(f"stopped: worker{go_on}", as_json, {"stopped": ["worker"], "running": running})


def _stop_and_wait(config: Config, how: str) -> bool:
    """Wait for a worker that waits for its jobs, and say for how many."""
    from relayq import clock, embedded
    from relayq.cli import left

    pid = embedded.ask_to_stop(config, how)
    if pid is None:
        return False
    said = 0
    try:
        while embedded.worker_pid(config) == pid:
            running = len(left.running_here(config))
            if running and running != said:
                remark(f"waiting for {number_of(running, 'job')} to end")
                said = running
            clock.sleep(_LOOK)
    except KeyboardInterrupt:
        remark("the worker goes on waiting; relayq worker stop leaves its jobs and ends it now")
        raise
    return True
