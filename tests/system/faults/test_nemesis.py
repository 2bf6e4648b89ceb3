"""Everything at once, at random: a short run with a fixed seed, and a long one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.faults import nemesis

pytestmark = pytest.mark.system

TREE = Path(__file__).parents[3]


@pytest.mark.timeout(240)
def test_a_fleet_survives_40_seconds_of_everything(redis7):
    # As docs/faults.md says that everybody can.
    command = [sys.executable, "-m", "tests.system.faults.nemesis", "--minutes", "0.67"]
    done = subprocess.run(
        [*command, "--seed", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RELAYQ_TEST_REDIS": str(redis7.binary)},
        cwd=TREE,
    )

    assert done.returncode == 0, done.stdout
    assert "all invariants hold" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_fleet_survives_30_minutes_of_everything(own_scene, journal):
    nemesis.run(own_scene, journal, seconds=1800, seed=secrets.randbelow(1_000_000))
