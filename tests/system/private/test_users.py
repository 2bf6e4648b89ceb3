"""Users of a private broker that runs: who comes in, who is cut off, what a start makes of it."""

from __future__ import annotations

import os
import signal

import pytest
import redis

from relayq import embedded
from relayq.embedded import admission
from relayq.errors import RelayqError
from tests.system.private.brokers import connect

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("each_server")]

KEY = "{rq}:relic"


def as_user(config, name: str, password: str) -> redis.Redis:
    (_, _, place) = embedded.start_broker(config).url.rpartition("@")
    return connect(f"redis://{name}:{password}@{place}")


def forget_refusals(config) -> None:
    with connect(embedded.admin_url(config)) as owner:
        owner.acl_log_reset()


def test_nobody_comes_in_without_a_name_and_a_password(config):
    embedded.start_broker(config)
    (_, _, place) = embedded.start_broker(config).url.rpartition("@")

    with connect(f"redis://{place}") as anybody, pytest.raises(redis.AuthenticationError):
        anybody.ping()
    for name in ("default", "admin", "worker-pi4"):
        with as_user(config, name, "guessed") as guest, pytest.raises(redis.AuthenticationError):
            guest.ping()
    forget_refusals(config)


def test_a_user_comes_in_at_once_and_is_cut_off_at_once(config):
    embedded.start_broker(config)
    password = embedded.add_user(config, "worker-pi4", role="worker")
    with as_user(config, "worker-pi4", password) as worker:
        assert worker.set(KEY, "kept")

        assert embedded.remove_user(config, "worker-pi4")

        # On the connection that it had, it would be answered.
        with pytest.raises(redis.AuthenticationError):
            worker.ping()
    forget_refusals(config)


def test_a_new_password_voids_the_old_one_and_its_connections(config):
    embedded.start_broker(config)
    old = embedded.add_user(config, "worker-pi4", role="worker")
    with as_user(config, "worker-pi4", old) as thief:
        assert thief.ping()

        new = embedded.add_user(config, "worker-pi4", role="client")

        with pytest.raises(redis.AuthenticationError):
            thief.ping()
    with as_user(config, "worker-pi4", new) as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.rpop(KEY)
    forget_refusals(config)


def test_what_a_broker_that_hangs_did_not_hear_can_be_said_again(config, monkeypatch):
    monkeypatch.setattr(embedded.broker, "_START_LIMIT", 0.5)
    facts = embedded.start_broker(config)
    password = embedded.add_user(config, "worker-pi4", role="worker")
    embedded.add_user(config, "client-pi4", role="client")
    kept = (config.home / "broker" / "users.json").read_bytes()

    os.kill(facts.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RelayqError):
            embedded.add_user(config, "worker-pi4", role="worker")
        with pytest.raises(RelayqError):
            admission.revoke(config, "pi4")
    finally:
        os.kill(facts.pid, signal.SIGCONT)

    # The machine isn't locked out at the next start by a password that nobody was told.
    assert (config.home / "broker" / "users.json").read_bytes() == kept
    with as_user(config, "worker-pi4", password) as worker:
        assert worker.ping()
    assert admission.revoke(config, "pi4") == ["client-pi4", "worker-pi4"]
    with connect(embedded.admin_url(config)) as owner:
        assert owner.acl_users() == ["admin", "default", "local"]
    forget_refusals(config)


def test_users_survive_a_restart_and_get_the_rules_of_the_relayq_that_starts_it(config):
    before = embedded.add_user(config, "worker-pi4", role="worker")  # before the first start
    embedded.start_broker(config)
    with as_user(config, "worker-pi4", before) as worker:
        # Several commands in one, as a script's: Redis checks these as it reads them again.
        worker.pipeline().set(KEY, "kept").sadd(f"{KEY}s", "kept").execute()
    embedded.stop_broker(config)
    lists = config.home / "broker" / "users.acl"
    lists.write_text(lists.read_text().replace("-@all", "+@all") + "user mallory on nopass +@all\n")

    embedded.start_broker(config)

    with connect(embedded.admin_url(config)) as owner:
        assert owner.acl_users() == ["admin", "default", "local", "worker-pi4"]
    with as_user(config, "worker-pi4", before) as worker:
        assert worker.get(KEY) == b"kept"
        assert worker.smembers(f"{KEY}s") == {b"kept"}
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.keys()
    forget_refusals(config)


def test_a_broker_that_runs_takes_up_the_rules_of_a_newer_relayq_and_cuts_nobody_off(config):
    embedded.start_broker(config)
    password = embedded.add_user(config, "worker-pi4", role="worker")
    lists = config.home / "broker" / "users.acl"
    with (
        connect(embedded.admin_url(config)) as owner,
        as_user(config, "worker-pi4", password) as worker,
    ):
        owner.execute_command("ACL", "SETUSER", "worker-pi4", "-get", "+keys")
        lists.write_text(lists.read_text().replace(" +get ", " +keys "))
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.get(KEY)
        known = owner.client_list()

        assert embedded.renew_rules(config)

        assert worker.get(KEY) is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.keys()
        assert {one["id"] for one in known} <= {one["id"] for one in owner.client_list()}
        assert owner.acl_users() == ["admin", "default", "local", "worker-pi4"]
    assert not embedded.renew_rules(config)
    forget_refusals(config)


def test_a_worker_beside_the_broker_sees_to_that_as_it_starts(config):
    embedded.start_broker(config)
    lists = config.home / "broker" / "users.acl"
    with connect(embedded.admin_url(config)) as owner:
        owner.execute_command("ACL", "SETUSER", "local", "-get")
        lists.write_text(lists.read_text().replace(" +get ", " "))

        embedded.Keeper(config).look()

        with connect(embedded.broker_url(config)) as local:
            assert local.get(KEY) is None


def test_without_a_broker_that_runs_no_rules_are_renewed(config):
    assert not embedded.renew_rules(config)
    embedded.start_broker(config)
    embedded.add_user(config, "worker-pi4", role="worker")
    embedded.stop_broker(config)

    assert not embedded.renew_rules(config)
    assert embedded.running_broker(config) is None


def test_data_of_a_broker_that_had_no_users_are_kept(config):
    embedded.start_broker(config)
    with connect(embedded.admin_url(config)) as owner:
        owner.pipeline().set(KEY, "kept").sadd(f"{KEY}s", "kept").execute()
    embedded.stop_broker(config)
    folder = config.home / "broker"
    password = (folder / "password").read_text()
    for name in ("users.acl", "local.password"):
        (folder / name).unlink()

    facts = embedded.start_broker(config)

    assert (folder / "password").read_text() == password
    with connect(facts.url) as client:
        assert client.get(KEY) == b"kept"
        assert client.smembers(f"{KEY}s") == {b"kept"}
