"""What `relayq broker install` and its like hand on."""

from __future__ import annotations

import json
import os

import pytest

from relayq import embedded
from relayq.cli import root
from relayq.cli.broker import broker
from relayq.embedded.broker import BrokerFacts
from relayq.embedded.managed import SYSTEMD, Installed
from relayq.errors import RelayqError
from relayq.host import firstbroker, services
from relayq.model.units import Role


@pytest.fixture
def asked(monkeypatch, home):
    """What is asked of the installation; nothing is installed."""
    calls = {}

    def install(config, role, *, prepare=lambda: None, **wanted):
        prepare()
        calls[role] = wanted
        return Installed(role, SYSTEMD, "user", "/unit", "fred")

    facts = BrokerFacts("redis://local:x@127.0.0.1:6379/0", 6379, 7, "7.0.15")
    monkeypatch.setattr(embedded, "start_broker", lambda config: facts)
    monkeypatch.setattr("relayq.cli.installs._tell_rivals", lambda: None)
    monkeypatch.setenv("RELAYQ_SERVE__START", "yes")
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(services, "install", install)
    monkeypatch.setattr(
        firstbroker, "make_broker", lambda config, user, flags: calls.setdefault("flags", flags)
    )
    return calls


def typed(*arguments: str) -> int | None:
    return root.main(list(arguments), prog_name="relayq", standalone_mode=False)


def test_options_of_a_broker_are_handed_on_as_they_may_be_typed(asked):
    flags = "--listen 100.64.0.3 --port 6379 --fsync everysec --ballast 1MB --tls --tls-name a"

    typed("broker", "install", *flags.split(), "--tls-name", "b")

    command = broker.get_command(None, "start")
    before = command.make_context("start", [*flags.split(), "--tls-name", "b"]).params
    assert command.make_context("start", list(asked["flags"])).params == before
    assert {Role.BROKER, Role.SERVE} <= asked.keys()


def test_what_was_not_said_is_not_asked_for(asked):

    typed("broker", "install", "--no-tls")

    assert asked["flags"] == ["--no-tls"]


def test_a_machine_with_another_broker_needs_none_of_its_own(asked, monkeypatch, capsys):
    monkeypatch.setenv("RELAYQ_BROKER__HOST", "100.64.0.9")

    assert typed("broker", "install") == 125

    assert "by its configuration" in capsys.readouterr().err
    assert not asked


def test_with_sudo_a_service_of_the_machine_runs_as_who_typed_it(asked, monkeypatch, capsys):
    own = os.environ.get("USER") or "root"
    monkeypatch.setenv("SUDO_USER", own)
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    typed("worker", "install", "--system", "--allow-sudo", "--json")

    assert asked[Role.WORKER] == {
        "system": True,
        "user": own,
        "may_sudo": True,
        "efficiency_cores": False,
    }
    said = json.loads(capsys.readouterr().out)
    assert said["service"]["name"] == "relayq-worker.service"


def test_a_worker_without_broker_and_redis_is_refused_before_it_is_a_service(
    asked, monkeypatch, capsys
):
    def refuse(environ):
        raise RelayqError("no Redis server on this machine", hint="sudo apt install redis-server")

    monkeypatch.setattr(embedded, "running_broker", lambda config: None)
    monkeypatch.setattr(embedded, "find_redis_server", refuse)

    assert typed("worker", "install") == 125

    assert "apt install redis-server" in capsys.readouterr().err
    assert Role.WORKER not in asked


def test_an_unknown_user_is_told(asked, capsys):
    assert typed("worker", "install", "--system", "--user", "nobody-here") == 125

    assert "there is no user nobody-here" in capsys.readouterr().err
