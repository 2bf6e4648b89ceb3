"""Rows 27 and 28: a cancel ends any tree in time, and wins any race."""

from __future__ import annotations

import random
import secrets
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from relayq import clock
from tests.system.faults.blows import until_state
from tests.system.faults.journal import check_invariants, ended
from tests.system.faults.races import Race, broken, cancel
from tests.system.faults.scene import GRACE
from tests.system.test_worker import commands_with
from tests.waiting import until

pytestmark = pytest.mark.system

#: Starts that many processes and their like, deaf to SIGTERM: children, sessions of their own,
#: daemons, and daemons with an empty environment.
SWARM = """
import os, signal, sys, time
mark, count, up = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
made = 0
while made < count:
    if os.fork() == 0:
        if made % 4:
            os.setsid()
        if made % 4 == 2 and os.fork():
            os._exit(0)
        if made % 4 == 3:
            if os.fork():
                os._exit(0)
            os.execve("/bin/sh", ["sh", "-c", "trap '' TERM; sleep 300; : " + mark], {})
        while True:
            time.sleep(300)
    made += 1
open(up, "w").close()
time.sleep(300)
"""
#: Forks as fast as it can, up to a number that any machine has room for.
BOMB = """
import os, sys, time
mark, up = sys.argv[1:]
deadline = time.monotonic() + 60
for generation in range(400):
    pid = os.fork()
    if generation == 20:
        open(up, "w").close()
    if pid:
        time.sleep(0.005)
        if generation % 2:
            os._exit(0)
while time.monotonic() < deadline:
    if os.fork():
        os._exit(0)
    time.sleep(0.001)
"""


@pytest.mark.parametrize("grace", ["default", "frozen"])
def test_400_processes_are_gone_within_the_grace_and_2_s(scene, one, tmp_path, grace):
    mark = f"mark-{secrets.token_hex(4)}"
    command = [sys.executable, "-I", "-S", "-c", SWARM, mark, "400", str(tmp_path / "up")]
    result = scene.job.run(command)
    until((tmp_path / "up").exists, within=30, what="the swarm")
    until(lambda: len(commands_with(mark)) >= 400, within=30, what="all of it")
    if grace == "frozen":
        one.end(signal.SIGKILL)
        until(lambda: all_stopped(mark), within=20, what="the freeze of all")
        one.start()

    assert result.cancel() == "asked"

    until_state(result, "cancelled", within=GRACE + 2)
    assert not commands_with(mark)


def test_what_forks_all_the_time_is_ended(scene, tmp_path):
    mark = f"mark-{secrets.token_hex(4)}"
    result = scene.job.run([sys.executable, "-I", "-S", "-c", BOMB, mark, str(tmp_path / "up")])
    until((tmp_path / "up").exists, within=30, what="the swarm")

    assert result.cancel() == "asked"

    until_state(result, "cancelled", within=GRACE + 5)
    assert not commands_with(mark)


def test_a_cancel_wins_every_race(scene, journal):
    check_races(scene, journal, races(scene, journal, 150, seed=7))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_a_cancel_wins_a_thousand_races_beside_dying_workers(scene, journal, one, seed):
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(races, scene, journal, 250, seed=seed)
        while not run.done():
            one.end(random.choice([signal.SIGKILL, signal.SIGTERM]))
            one.start()
            clock.sleep(random.random() * 6)
    check_races(scene, journal, run.result())


def races(scene, journal, count: int, *, seed: int) -> list[Race]:
    """Cancel that many jobs at an instant of their lives that chance chooses."""
    chance = random.Random(seed)
    plans = [
        {
            "seconds": chance.choice([0.0, 0.0, 0.1, 0.4]),
            "code": (code := chance.choice([0, 0, 1])),
            "retries": code,
            "on_lost": chance.choice(["retry", "ask", "fail"]),
            "delay": chance.choice([0.0, 0.02, 0.1, 0.3, 1.5]) * chance.random(),
        }
        for _ in range(count)
    ]

    def run(plan: dict) -> Race | None:
        delay = plan.pop("delay")
        result = journal.submit(scene.job, plan.pop("seconds"), **plan)
        clock.sleep(delay)
        return cancel(scene.store, result)

    with ThreadPoolExecutor(6) as pool:
        return [race for race in pool.map(run, plans) if race is not None]


def check_races(scene, journal, ran: list[Race]) -> None:
    """Check that an acknowledged cancel won, and that nothing was started after it."""
    assert {race.word for race in ran} >= {"cancelled", "asked", "succeeded"}
    records = ended(scene.store, journal.promises, within=60)
    assert not list(broken(ran, records, journal))
    check_invariants(journal, scene.job, ["one"], within=60)


def all_stopped(mark: str) -> bool:
    """Tell whether every process with this mark is stopped."""
    import psutil

    states = set()
    for pid in commands_with(mark):
        try:
            states.add(psutil.Process(pid).status())
        except psutil.NoSuchProcess:
            return False
    return states == {psutil.STATUS_STOPPED}
