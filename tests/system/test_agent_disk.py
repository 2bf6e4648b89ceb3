"""An agent's runner on a disk that is full."""

from __future__ import annotations

import subprocess
from contextlib import suppress

import pytest

from relayq.kinds import Ended, find
from tests.system.test_agent_runner import Place
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.mark.root
def test_a_host_whose_disk_is_full_says_so_without_a_report(tmp_path):
    place = Place(tmp_path)
    small = tmp_path / "relayq"
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a tmpfs")
    try:
        place.report = small / "report.json"
        go = tmp_path / "go"
        process = place.start(["init", "read", ["wait for", str(go)], "result"])
        until(place.notes.exists, within=20, what="the agent to run")
        with suppress(OSError), (small / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        go.touch()
        process.communicate(timeout=30)
    finally:
        subprocess.run(["umount", "-l", small], check=True)

    ended = Ended(process.returncode, None, "exit", None)
    verdict = find("run_agent").kind.interpret(ended)
    assert "its host couldn't write its report: that host's disk is full" in verdict.error
    assert str(verdict.state) == "scheduled"
