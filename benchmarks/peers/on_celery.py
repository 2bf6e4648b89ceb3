"""Plain Celery's app: its defaults, results in the same Redis."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.peers import run_line
from benchmarks.processes import BROKER

app = Celery("benchmarks", broker=os.environ[BROKER], backend=os.environ[BROKER])


@app.task
def run(line: str) -> str:
    """Run a line of shell."""
    return run_line(line)
