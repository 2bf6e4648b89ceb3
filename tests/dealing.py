"""Deals the tests to xdist's workers: to each its share of the long modules, and those first.

`--dist worksteal` cuts the order of the tests into equal counts, and whoever has nothing left takes
from the end of the longest rest. So the end of each share are quick tests, which fill up the run;
and the module of a fleet, which each worker that gets a part of it has to start for itself, mostly
stays in one hand.
"""

from __future__ import annotations

from itertools import groupby

import pytest

#: Seconds a test, of the rooms where a test takes more than some hundredths of one.
_SECONDS = {
    "system/guests/": 200.0,
    "system/test_high_availability": 30.0,
    "system/agents/": 8.0,
    "system/faults/": 5.0,
    "system/": 1.5,
    "redis/test_high_availability": 1.0,
}


def deal(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return the tests in the order that deals them to so many workers."""
    modules = [list(group) for _, group in groupby(items, _module)]
    quick = [item for module in modules if not _weight(module) for item in module]
    hands: list[list[pytest.Item]] = [[] for _ in range(workers)]
    held = [0.0] * workers
    for module in sorted(filter(_weight, modules), key=_weight, reverse=True):
        least = held.index(min(held))
        hands[least] += module
        held[least] += _weight(module)
    dealt: list[pytest.Item] = []
    for number, hand in enumerate(hands):
        # As many as worksteal gives this worker.
        share = (len(items) - len(dealt)) // (workers - number)
        count = max(0, share - len(hand))
        dealt += hand + quick[:count]
        del quick[:count]
    return dealt + quick


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _weight(module: list[pytest.Item]) -> float:
    """Return how many seconds the tests of a module take, about; 0 if it is a quick one."""
    name = _module(module[0])
    seconds = (each for room, each in _SECONDS.items() if f"tests/{room}" in name)
    return len(module) * next(seconds, 0.0)
