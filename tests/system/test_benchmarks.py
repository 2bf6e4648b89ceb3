"""The benchmarks run, in tiny counts; how fast is no test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RedisServer

ROOT = Path(__file__).parent.parent.parent
SUBJECTS = {
    "peers": "echo hi: submit to result, p50",
    "backlog": "bulk submit of 10",
    "output": "100 MB: to the last byte",
    "idle": "idle: resident, worker",
    "shell": "whole process",
    "away": "echo hi, broker 20 ms away",
    "placement": "200 jobs at once: last end",
    "views": "whole process, 3 hosts",
    "map": "map of 40 x true",
    "flows": "chain of 5 x true, a step",
    "media": "film of 1 s, 160x120: CPU",
}


@pytest.mark.system
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_benchmark_measures_relayq(subject, redis7: RedisServer):
    environ = {**os.environ, "PATH": f"{redis7.binary.parent}:{os.environ['PATH']}"}
    only = ["--only", "floor", "--only", "relayq"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--small", "--json", *only, subject],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    measured = json.loads(ran.stdout)["figures"]
    ours = {one["what"] for one in measured if one["who"].startswith(("relayq", "pull"))}
    assert SUBJECTS[subject] in ours
    assert all(one["median"] >= 0 for one in measured if one["what"] == SUBJECTS[subject])


def test_a_subject_that_does_not_exist_is_named():
    from benchmarks.__main__ import options

    with pytest.raises(SystemExit):
        options(["nonsense"])
