"""A large graph of jobs whose broker is killed in the middle of it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from relayq.model.jobs import JobState
from relayq.workflows import Flows
from tests.system.faults.journal import unsound
from tests.waiting import until

pytestmark = pytest.mark.system

STEPS = 1000


@pytest.mark.timeout(240)
def test_a_thousand_steps_lose_nothing_when_the_broker_dies_in_the_middle(own_scene, tmp_path):
    own_scene.add("one", slots=8)
    journal = tmp_path / "ran"
    chance = random.Random(8)
    made = Flows(own_scene.relay)("large")
    needs: dict[str, list[str]] = {}
    for n in range(STEPS):
        name = f"s{n}"
        before = range(max(0, n - 40), n)
        needs[name] = [f"s{m}" for m in chance.sample(before, min(len(before), 2))]
        made.add(name, f"echo {name} >> {journal}", needs=needs[name])

    run = made.run()
    for part in (1, 2):
        until(lambda part=part: ran(journal) >= part * STEPS // 3, within=60, what="a third to run")
        own_scene.broker.restart()

    assert run.wait(120) == "succeeded"
    records = {one.step: one.record for one in run.jobs()}
    assert Counter(record.state for record in records.values()) == {JobState.SUCCEEDED: STEPS}
    # What a killed broker had not heard of may have run twice, and that is said by its attempts.
    attempts = sum(record.attempt for record in records.values())
    assert STEPS <= ran(journal) <= attempts
    order = {name: n for n, name in enumerate(journal.read_text().split())}
    assert all(order[need] < order[name] for name in needs for need in needs[name])
    assert not unsound(own_scene.store)


def ran(journal) -> int:
    return len(journal.read_text().split()) if journal.exists() else 0
