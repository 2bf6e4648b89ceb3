"""huey's app: its defaults, and a notification of whoever waits for a result."""

from __future__ import annotations

import os

from huey import RedisHuey

from benchmarks.peers import run_line
from benchmarks.processes import BROKER

app = RedisHuey("benchmarks", url=os.environ[BROKER], notify_result=True)


@app.task()
def run(line: str) -> str:
    """Run a line of shell."""
    return run_line(line)
