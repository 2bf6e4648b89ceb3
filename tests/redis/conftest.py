"""The room of the store: each test has a data set of its own, on each sort of Redis."""

from __future__ import annotations

import secrets
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
    """A store with a prefix of its own."""
    return Store(connection, prefix=f"{{{secrets.token_hex(4)}}}:", offset=clock)


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
