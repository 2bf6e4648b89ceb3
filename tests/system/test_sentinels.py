"""A whole fleet behind Redis Sentinel: a failover in the middle of a job costs nothing."""

import os
import subprocess
import sys

import pytest

from tests.redis.test_sentinels import Sentinels, sentinels
from tests.waiting import until

__all__ = ["sentinels"]

pytestmark = pytest.mark.system


def test_a_job_and_its_worker_outlive_a_failover(sentinels: Sentinels, home):
    env = {**os.environ, "RELAYQ_BROKER__URL": sentinels.url, "RELAYQ_WORKER__NAME": "pi4"}
    env["RELAYQ_WORKER__CPU_THRESHOLD"] = "100"
    relayq = [sys.executable, "-m", "relayq"]

    def relayq_says(*arguments):
        ran = subprocess.run(
            [*relayq, *arguments],
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        return ran.returncode, ran.stdout

    with (home / "worker.out").open("w") as log:
        worker = subprocess.Popen(
            [*relayq, "worker", "start"], env=env, stdout=log, stderr=log, start_new_session=True
        )
    assert relayq_says("run", "echo before") == (0, "before\n")
    begun = home / "begun"
    running = subprocess.Popen(
        [*relayq, "run", f"touch '{begun}'; sleep 3; echo survived"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    until(begun.exists, within=20, what="the job to start")

    sentinels.kill(sentinels.master)

    assert running.communicate(timeout=60)[0] == "survived\n"
    assert running.returncode == 0
    until(
        lambda: relayq_says("run", "echo after") == (0, "after\n"),
        within=60,
        what="a job after the failover",
    )
    worker.terminate()
    worker.wait()
