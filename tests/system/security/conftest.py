"""An attacker beside a fleet: what they have is a connection, and never the fleet's key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from relayq.embedded.users import add_user, admin_url
from relayq.model.access import WORKER
from relayq.signing import Signer
from relayq.store import Store, connect
from tests.waiting import until


@dataclass
class Attacker:
    """Somebody with a credential of the broker's, on whose bait a canary would be laid."""

    fleet: Any
    store: Store
    canary: Path
    url: str
    #: A key of their own making.
    signer: Signer

    @property
    def connection(self) -> redis.Redis:
        return self.store.connection

    def key(self, name: str, suffix: str = "") -> str:
        return self.store.keys(name, suffix)

    @property
    def bait(self) -> str:
        """A command that shows it ran."""
        return f"touch {self.canary}"

    def got_nothing(self) -> None:
        """The fleet still works, and nothing of what was tried has run."""
        assert self.fleet.job.run("echo well", host="here").get(timeout=20) == "well"
        assert not self.canary.exists()


def as_user(url: str, name: str, secret: str) -> str:
    """Return the URL of a broker as somebody else reaches it."""
    scheme, _, place = url.partition("://")
    return f"{scheme}://{name}:{secret}@{place.rpartition('@')[2]}"


@pytest.fixture(scope="module")
def credential(shared_fleet: Any) -> Iterator[str]:
    """The URL with what a worker has of the broker's; a machine that only submits has less."""
    secret = add_user(shared_fleet.config, "worker-evil", role=WORKER, host="evil")
    yield as_user(shared_fleet.broker.url, "worker-evil", secret)
    forgive(shared_fleet)


@pytest.fixture
def attacker(shared_fleet: Any, credential: str, tmp_path: Path) -> Iterator[Attacker]:
    store = connect(credential)
    key = Signer(b"a key of the attacker's own")
    yield Attacker(shared_fleet, store, tmp_path / "canary", credential, key)
    store.close()
    forgive(shared_fleet)


def forgive(fleet: Any) -> None:
    """Forget what attackers were refused; nobody else may have been refused anything."""
    with redis.Redis.from_url(admin_url(fleet.config)) as admin:
        rows = [row for row in admin.acl_log() if row["reason"] != "auth"]
        assert not [row for row in rows if "evil" not in str(row["username"])]
        admin.acl_log_reset()


@pytest.fixture
def ghost_job(shared_fleet: Any) -> Iterator[Any]:
    """A job that waits, whose record and signed spec an attacker may play with."""
    job = shared_fleet.job.run("echo honest", host="ghost", wait_for_host=True)
    yield job
    job.cancel()
    until(lambda: job.record.state.is_final, what="it to be gone")
