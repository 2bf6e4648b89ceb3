"""A job goes on where its last attempt was."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys

import pytest

from tests.system.commands import ROOT, relayq, until_exists
from tests.waiting import until

pytestmark = pytest.mark.system


def checkpoint(*words: str) -> str:
    """Return the shell words by which a job asks for its checkpoint."""
    argv = [sys.executable, "-m", "relayq", "checkpoint", *words]
    return f"env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.join(argv)}"


def test_a_job_counts_on_after_its_worker_and_its_shim_were_killed_and_after_a_failure(
    mended_fleet, tmp_path
):
    fleet = mended_fleet
    script = (
        f"n=$({checkpoint('get')} || echo none); echo $n >> {tmp_path}/starts; case $n in "
        f'none) printf "1\\n" > $RELAYQ_CHECKPOINT; {until_exists(tmp_path / "go")};; '
        f"1) {checkpoint('set', '2')}; exit 3;; esac; echo done"
    )
    result = fleet.job.run(script, retries=1, backoff="0s..0s")
    kept = fleet.relay.session().store.checkpoints
    # Signed by the worker.
    is_kept = lambda: (kept.of(result.id) or b"").endswith(b"1\n")  # noqa: E731
    until(is_kept, within=20, what="the checkpoint to be brought")
    (attempt,) = [p for p in fleet.config.spool.iterdir() if p.name.startswith(result.id)]
    shim = json.loads((attempt / "run.json").read_text())["shim"]

    fleet.end_worker(signal.SIGKILL)
    os.kill(shim, signal.SIGKILL)
    (tmp_path / "go").touch()
    fleet.start_worker()

    assert result.get(timeout=30) == "done"
    assert (tmp_path / "starts").read_text().split() == ["none", "1", "2"]
    assert kept.of(result.id) is None


def test_set_and_get_are_byte_by_byte_and_say_what_is_wrong(home, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RELAYQ_CHECKPOINT": str(tmp_path / "checkpoint")}
    nothing = relayq("checkpoint", "get", env=env)
    for name, text in {"small": " 42\n\n", "large": "x" * (256 * 1024 + 1)}.items():
        (tmp_path / name).write_text(text)
        with (tmp_path / name).open() as file:
            large = relayq("checkpoint", "set", "-", env=env, stdin=file)
    found = relayq("checkpoint", "get", env=env)
    outside = relayq("checkpoint", "get")

    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "no attempt of this job has left a checkpoint" in nothing.stderr
    assert (large.returncode, "at most 256 KiB" in large.stderr) == (125, True)
    assert (found.returncode, found.stdout) == (0, " 42\n\n")
    assert (outside.returncode, "isn't inside a job" in outside.stderr) == (125, True)
