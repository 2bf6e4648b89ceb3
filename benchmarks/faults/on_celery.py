"""Plain Celery's app: its defaults, or its settings for jobs that must not get lost."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.peers import run_line
from benchmarks.processes import BROKER

#: Set in the environment of workers that ack late.
LATE = "RELAYQ_BENCHMARK_LATE"
TASK = "benchmarks.faults.run"
#: Scaled: an hour, and about 100 s between two looks for what exceeds it, are the defaults.
VISIBILITY_TIMEOUT = 5
_SCALED = {
    "visibility_timeout": VISIBILITY_TIMEOUT,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}


def build(url: str | None, *, late: bool) -> Celery:
    """Return an app, for a worker or for a client."""
    made = Celery("faults", broker=url, backend=url, set_as_current=False)
    # Without this a running job is PENDING, as is one that nobody ever heard of.
    made.conf.task_track_started = True
    made.conf.broker_connection_retry_on_startup = True
    made.conf.broker_transport_options = _SCALED
    made.conf.task_acks_late = late
    made.conf.task_reject_on_worker_lost = late
    made.task(name=TASK)(run_line)
    return made


app = build(os.environ.get(BROKER), late=LATE in os.environ)
