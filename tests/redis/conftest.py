"""The room of the store: each test has an empty data set, on each sort of Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from relayq.store import Store
from tests.redis.consistency import problems
from tests.redis.fleet import Clock, Fleet


@pytest.fixture
def clock() -> Clock:
    """The store's clock, to advance."""
    return Clock()


@pytest.fixture
def store(connection: redis.Redis, clock: Clock) -> Store:
    """A store on an empty Redis; no key of it has the prefix that relayq itself uses."""
    # One prefix for all tests: it is part of the scripts' text, so that a prefix for each would
    # have the servers compile and keep 13 scripts a test (measured: the room takes twice as long).
    return Store(connection, prefix="{test}:", offset=clock)


@pytest.fixture
def fleet(store: Store, clock: Clock) -> Fleet:
    """Who asks, and makes hosts."""
    return Fleet(store, clock)


@pytest.fixture(autouse=True)
def _nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after each test that Redis holds what the data dictionary allows, and no more."""
    if "store" not in request.fixturenames:
        yield
        return
    store: Store = request.getfixturevalue("store")
    yield
    assert not problems(store)
