"""Everything at once, at random: a short run with a fixed seed, and a long one."""

from __future__ import annotations

import secrets

import pytest

from tests.system.faults import nemesis

pytestmark = pytest.mark.system


@pytest.mark.timeout(240)
def test_a_fleet_survives_40_seconds_of_everything(own_scene, journal):
    nemesis.run(own_scene, journal, seconds=40, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_fleet_survives_30_minutes_of_everything(own_scene, journal):
    nemesis.run(own_scene, journal, seconds=1800, seed=secrets.randbelow(1_000_000))
