"""Users of the private broker, as they are kept while it doesn't run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from relayq import config as configuration
from relayq import embedded
from relayq.config import Config
from relayq.embedded.users import users
from relayq.errors import BrokerUnavailable, RelayqError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration.load({"RELAYQ_HOME": str(tmp_path / "home")})


def kept(config: Config) -> str:
    return (config.home / "broker" / "users.json").read_text()


def test_users_are_listed_by_name(config):
    embedded.add_user(config, "worker-pi4", role="worker", host="pi4")
    # Who is called so is of that machine: removing the host removes it.
    embedded.add_user(config, "client-laptop", role="client")
    embedded.add_user(config, "flower", role="flower")

    said = [(user.name, user.role, user.host) for user in users(config)]

    assert said == [
        ("client-laptop", "client", "laptop"),
        ("flower", "flower", None),
        ("worker-pi4", "worker", "pi4"),
    ]
    assert all(user.created > 1.7e9 for user in users(config))


def test_a_password_is_long_new_each_time_and_only_its_sum_is_kept(config):
    first = embedded.add_user(config, "worker-pi4", role="worker")
    second = embedded.add_user(config, "worker-pi4", role="client")

    assert len(first) == 64
    assert first != second
    assert first not in kept(config)
    assert second not in kept(config)
    assert (
        json.loads(kept(config))["worker-pi4"]["sha256"]
        == hashlib.sha256(second.encode()).hexdigest()
    )
    assert [user.role for user in users(config)] == ["client"]
    assert (config.home / "broker" / "users.json").stat().st_mode & 0o777 == 0o600


def test_a_removed_user_is_gone(config):
    embedded.add_user(config, "worker-pi4", role="worker")

    assert embedded.remove_user(config, "worker-pi4")
    assert not embedded.remove_user(config, "worker-pi4")
    assert users(config) == []


@pytest.mark.parametrize("name", ["default", "admin", "local"])
def test_the_brokers_own_users_are_nobody_elses(config, name):
    for act in (embedded.remove_user, lambda *who: embedded.add_user(*who, role="worker")):
        with pytest.raises(RelayqError, match="is the broker's own user"):
            act(config, name)


@pytest.mark.parametrize("name", ["", "a b", "worker\non nopass", "~*", "Pi", "a@b", "a:b", "é"])
def test_a_name_that_would_change_its_line_is_refused(config, name):
    with pytest.raises(RelayqError, match="can't be a user's name"):
        embedded.add_user(config, name, role="worker")
    assert users(config) == []


def test_nobody_can_be_made_the_owner(config):
    with pytest.raises(RelayqError, match="there is no role 'admin'"):
        embedded.add_user(config, "mallory", role="admin")


def test_users_that_cannot_be_understood_are_not_taken_for_none(config):
    embedded.add_user(config, "worker-pi4", role="worker")
    (config.home / "broker" / "users.json").write_text('{"worker-pi4": {}}')

    with pytest.raises(RelayqError, match=r"users\.json can't be understood"):
        users(config)
    with pytest.raises(RelayqError, match=r"users\.json can't be understood"):
        embedded.add_user(config, "worker-mini", role="worker")


def test_before_the_first_start_nobody_owns_a_broker(config):
    with pytest.raises(BrokerUnavailable, match="no broker has run here"):
        embedded.admin_url(config)
