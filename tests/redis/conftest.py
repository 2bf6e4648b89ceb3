"""The room of the store: each test has an empty data set, on each sort of Redis."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import fakeredis
import pytest
import redis

from relayq.model import access
from relayq.store import Store
from relayq.store.direct import Address, Direct
from tests.redis.consistency import problems
from tests.redis.fleet import Clock, Fleet

PREFIX = "{test}:"


@pytest.fixture
def clock() -> Clock:
    """The store's clock, to advance."""
    return Clock()


@pytest.fixture
def store(connection: redis.Redis, clock: Clock) -> Iterator[Store]:
    """A store on an empty Redis, with the rights of a worker; no key has relayq's own prefix."""
    # One prefix for all tests: it is part of the scripts' text, so that a prefix for each would
    # have the servers compile and keep 13 scripts a test (measured: the room takes twice as long).
    limited = as_worker(connection)
    store = Store(limited, prefix=PREFIX, offset=clock)
    # Every part has its connection then; what a test itself asks for is its own business.
    for name in [name for name, one in vars(Store).items() if isinstance(one, cached_property)]:
        getattr(store, name)
    store.connection = connection
    yield store
    limited.close()


def as_worker(connection: Any) -> Any:
    """Return another connection, with a worker's rights only: on the tests' keys, and no others.

    fakeredis knows no users.
    """
    is_direct = isinstance(connection, Direct)
    if isinstance(connection, fakeredis.FakeStrictRedis):
        return connection
    words = access.rules(access.WORKER, PREFIX)
    connection.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">worker", *words)
    if is_direct:
        address = Address.parse(f"unix://worker:worker@{connection._address.path}")
        return Direct(address, patience=3.5, whole=lambda: as_worker(connection.whole))
    path = connection.connection_pool.connection_kwargs["path"]
    return redis.Redis(unix_socket_path=path, username="worker", password="worker")


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
