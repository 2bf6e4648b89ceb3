"""What Redis says of itself, what is around a job, and a copy of everything."""

from __future__ import annotations

import os
import stat

import pytest
import redis

from relayq.errors import RelayqError
from relayq.store import Store


@pytest.fixture(params=["redis7", "redis62"])
def connection(request: pytest.FixtureRequest):
    """A real server: fakeredis has no INFO to speak of, and no SYNC."""
    with request.getfixturevalue(request.param).connect() as client:
        client.flushdb()
        yield client


def test_a_server_says_what_it_is(store, connection):
    server = store.server.fetch()

    assert server.version == connection.info("server")["redis_version"]
    assert server.pid == connection.info("server")["process_id"]
    assert server.run_id
    assert not server.has_aof
    assert server.is_aof_ok
    assert server.is_rdb_ok
    assert server.memory > 0
    assert server.replica_of is None


def test_the_settings_are_told(connection):
    settings = Store(connection).server.settings()

    assert settings["appendonly"] == "no"
    assert settings["maxmemory-policy"] == "noeviction"
    assert "requirepass" not in settings


def test_settings_that_one_may_not_read_are_none(store, connection):
    connection.acl_setuser(
        "shy", enabled=True, passwords=["+p"], keys="*", commands=["+@all", "-config", "-client"]
    )
    shy = redis.Redis(
        unix_socket_path=connection.connection_pool.connection_kwargs["path"],
        username="shy",
        password="p",
    )
    try:
        assert Store(shy, prefix="{test}:").server.settings() == {}
        assert Store(shy, prefix="{test}:").server.clients() == []
    finally:
        shy.close()
        connection.acl_deluser("shy")


def test_clocks_of_one_machine_agree(store):
    said = store.server.clock()

    assert abs(said.offset) < 1.0
    assert 0 < said.latency < 1.0


def test_who_is_connected_is_told_to_the_owner(store, connection):
    connection.client_setname("the-test")

    assert "the-test" in {client.name for client in Store(connection).server.clients()}
    assert store.server.clients() == []
    assert store.server.settings() == {}


def test_what_held_redis_up_is_told_while_it_is_recent(store, connection):
    connection.config_set("latency-monitor-threshold", 1)
    try:
        connection.eval("local n = 0; for i = 1, 3e6 do n = n + i end", 0)
        (seconds, _) = connection.time()

        assert store.server.pauses(since=seconds - 60)["command"] > 0.001
        assert store.server.pauses(since=seconds + 60) == {}
    finally:
        connection.config_set("latency-monitor-threshold", 0)
        connection.execute_command("LATENCY RESET")


# Around a job


def test_a_queued_job_knows_who_is_before_it(fleet, store):
    later = fleet.submit()
    urgent = fleet.submit(priority=10)

    around = store.places.around(fleet.record(later))

    assert (around.ahead, around.first) == (1, (urgent,))
    assert store.places.around(fleet.record(urgent)).ahead == 0
    assert abs(around.now - fleet.now()) < 5


def test_a_running_job_knows_when_its_lease_ends(fleet, store):
    id = fleet.submit()
    fleet.host().start(id)

    around = store.places.around(fleet.record(id))

    assert 50 < around.deadline - around.now <= 60
    assert store.places.running_on(["pi4", "mac"]) == {"pi4": (id,), "mac": ()}


def test_a_lost_job_knows_when_the_verdict_falls(fleet, store, clock):
    id = fleet.submit()
    fleet.host().start(id)
    fleet.expire()

    around = store.places.around(fleet.record(id))

    assert around.deadline - (around.now + clock.offset) > 20


def test_a_job_that_was_judged_lost_and_asks_knows_where_it_may_still_run(fleet, store):
    id = fleet.submit(on_lost="ask")
    fleet.lose(fleet.host(), id)

    assert store.places.around(fleet.record(id)).orphan == "pi4"


def test_an_ended_job_has_no_deadline(fleet, store):
    id = fleet.submit()
    fleet.host().run(id)

    assert store.places.around(fleet.record(id)).deadline is None


def test_the_fleets_key_of_the_data_is_known(fleet, store):
    assert store.key_id() is None
    fleet.host()
    assert store.key_id() == fleet.signer.key_id


# Copies


def test_a_backup_is_whole_and_its_owners_only(fleet, store, tmp_path):
    id = fleet.submit(payload={"cmd": "x" * 300_000})

    size = store.back_up(tmp_path / "copy")

    content = (tmp_path / "copy").read_bytes()
    assert len(content) == size
    assert content.startswith(b"REDIS")
    assert id.encode() in content
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["copy"]


def test_a_large_backup_arrives_in_many_pieces(store, connection, tmp_path):
    noise = os.urandom(3_000_000)
    connection.set("{test}:noise", noise)
    try:
        size = store.back_up(tmp_path / "copy")
    finally:
        connection.delete("{test}:noise")

    assert size > 3_000_000
    assert noise in (tmp_path / "copy").read_bytes()


def test_after_a_backup_the_store_goes_on(fleet, store, tmp_path):
    store.back_up(tmp_path / "copy")

    assert fleet.submit()


def test_a_backup_that_cannot_be_written_leaves_nothing(store, tmp_path):
    with pytest.raises(RelayqError, match="can't write the backup"):
        store.back_up(tmp_path / "missing" / "copy")

    assert not list(tmp_path.iterdir())


def test_a_server_that_gives_no_copy_says_so(store, connection, tmp_path):
    connection.acl_setuser(
        "shy", enabled=True, passwords=["+p"], keys="*", commands=["+@all", "-sync"]
    )
    shy = redis.Redis(
        unix_socket_path=connection.connection_pool.connection_kwargs["path"],
        username="shy",
        password="p",
    )
    try:
        with pytest.raises(RelayqError, match="the broker gives no copy of its data: -NOPERM"):
            Store(shy, prefix="{test}:").back_up(tmp_path / "copy")
    finally:
        shy.close()
        connection.acl_deluser("shy")
    assert not list(tmp_path.iterdir())
