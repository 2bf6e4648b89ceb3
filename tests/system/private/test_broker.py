"""The private broker, with real servers: started, stopped, several at once, its addresses."""

from __future__ import annotations

import os
import signal
import socket
import sys

import psutil
import pytest

from relayq import embedded
from relayq.embedded import broker, sockets
from relayq.errors import RelayqError
from tests.system.private.brokers import connect, outputs, python, servers_of
from tests.waiting import until

pytestmark = pytest.mark.system


# Starting and stopping


@pytest.mark.usefixtures("each_server")
def test_a_broker_answers_whoever_has_its_password(config):
    facts = embedded.start_broker(config)

    with connect(facts.url) as client:
        assert client.ping()
        assert client.info("server")["process_id"] == facts.pid
        assert client.info("server")["redis_version"] == facts.version
    for user in ("default", "local", "admin", "somebody"):
        assert sockets.ask(facts.port, user, "guessed") == sockets.Answer()
    with connect(embedded.admin_url(config)) as client:
        assert {entry["reason"] for entry in client.acl_log()} == {"auth"}
        client.acl_log_reset()
    assert embedded.running_broker(config) == facts
    assert embedded.broker_url(config) == facts.url
    assert facts.port != 6379


@pytest.mark.usefixtures("each_server")
def test_a_broker_keeps_what_it_answered_and_drops_nothing(config):
    embedded.start_broker(config)
    with connect(embedded.admin_url(config)) as client:
        values = {
            name: client.config_get(name)[name]
            for name in ("appendonly", "appendfsync", "maxmemory-policy", "save", "protected-mode")
        }

    assert values == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "protected-mode": "yes",
    }


def test_nobody_else_can_read_the_brokers_files(config):
    embedded.start_broker(config)

    folder = config.home / "broker"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("password", "local.password", "users.acl", "redis.conf", "broker.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    for name in ("password", "local.password"):
        assert len((folder / name).read_text().strip()) == 64


@pytest.mark.usefixtures("each_server")
def test_data_port_and_password_survive_a_stop(config):
    before = embedded.start_broker(config)
    with connect(before.url) as client:
        client.set("{rq}:relic", "kept")
    assert embedded.stop_broker(config)

    after = embedded.start_broker(config)

    assert (after.url, after.version) == (before.url, before.version)
    assert after.pid != before.pid
    with connect(after.url) as client:
        assert client.get("{rq}:relic") == b"kept"


@pytest.mark.usefixtures("each_server")
def test_data_survive_a_kill(config):
    before = embedded.start_broker(config)
    with connect(before.url) as client:
        # What scripts write is kept as transactions, which Redis checks again as it reads them.
        client.pipeline().set("{rq}:before", "kept").set("{rq}:relic", "kept").execute()
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: embedded.running_broker(config) is None, what="the broker to be missed")

    after = embedded.start_broker(config)

    assert after.url == before.url
    with connect(after.url) as client:
        assert client.get("{rq}:relic") == b"kept"


@pytest.mark.usefixtures("each_server")
def test_a_stop_leaves_no_process(config):
    facts = embedded.start_broker(config)
    assert servers_of(config) == [facts.pid]

    assert embedded.stop_broker(config)

    assert servers_of(config) == []
    assert embedded.running_broker(config) is None
    assert embedded.broker_url(config) == facts.url
    assert not embedded.stop_broker(config)


def test_a_stop_ends_a_server_that_hangs(config, monkeypatch):
    monkeypatch.setattr(broker, "_STOP_LIMIT", 0.5)
    facts = embedded.start_broker(config)
    os.kill(facts.pid, signal.SIGSTOP)

    assert embedded.stop_broker(config)

    assert servers_of(config) == []


def test_a_broker_hears_the_signals_that_its_starter_holds_back(config):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        facts = embedded.start_broker(config)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    os.kill(facts.pid, signal.SIGTERM)

    until(lambda: servers_of(config) == [], within=20, what="the broker to end")


def test_before_the_first_start_there_is_no_broker(config):
    assert embedded.broker_url(config) is None
    assert embedded.running_broker(config) is None
    assert not embedded.stop_broker(config)
    assert list(config.home.iterdir()) == []


def test_a_broker_is_no_part_of_the_job_that_started_it(config, monkeypatch):
    monkeypatch.setenv("RELAYQ_JOB_ID", "j")

    facts = embedded.start_broker(config)

    process = psutil.Process(facts.pid)
    assert not {name for name in process.environ() if name.startswith("RELAYQ_")}
    assert process.ppid() != os.getpid()
    assert os.getsid(facts.pid) == facts.pid


# Several at once


@pytest.mark.usefixtures("each_server")
def test_two_homes_have_two_brokers(new_config):
    configs = [new_config() for _ in range(2)]
    one, other = map(embedded.start_broker, configs)

    assert one.port != other.port
    with connect(one.url) as client:
        client.set("{rq}:mine", 1)
    with connect(other.url) as client:
        assert not client.exists("{rq}:mine")
    password = one.url.partition("redis://local:")[2].partition("@")[0]
    assert sockets.ask(one.port, "local", password).ready_pid == one.pid
    assert sockets.ask(other.port, "local", password) == sockets.Answer()
    with connect(embedded.admin_url(configs[1])) as owner:
        owner.acl_log_reset()


@pytest.mark.usefixtures("each_server")
def test_eight_processes_at_once_start_one_broker(config):
    program = "print(embedded.start_broker(config).url)"

    urls = outputs([python(program, config) for _ in range(8)])

    assert set(urls) == {f"{embedded.broker_url(config)}\n"}
    assert len(servers_of(config)) == 1


def test_starts_and_stops_at_once_leave_at_most_one_broker(config):
    program = (
        "[embedded.start_broker(config) if turn % 2 else embedded.stop_broker(config)"
        " for turn in range(10)]"
    )

    outputs([python(program, config) for _ in range(4)])

    assert len(servers_of(config)) <= 1
    embedded.start_broker(config)
    assert len(servers_of(config)) == 1


def test_starting_what_runs_imports_no_client_library(config):
    facts = embedded.start_broker(config)
    program = (
        "import sys; facts = embedded.start_broker(config);print(facts.pid, 'redis' in sys.modules)"
    )

    assert outputs([python(program, config)]) == [f"{facts.pid} False\n"]


# Addresses and ports


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "*", "", "0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0"]
)
def test_a_broker_does_not_listen_on_every_network(config, address):
    with pytest.raises(RelayqError, match="every network this machine is in"):
        embedded.start_broker(config, listen=address)

    assert servers_of(config) == []


@pytest.mark.parametrize(
    ("address", "problem", "hint"),
    [
        ("mini.local", "no IP address", "address in your private network"),
        ("192.0.2.7", "can't listen on 192.0.2.7 port", "an address that this machine has"),
    ],
)
def test_an_address_must_be_one_of_this_machine(config, address, problem, hint):
    with pytest.raises(RelayqError, match=problem) as refused:
        embedded.start_broker(config, listen=address)

    assert hint in refused.value.hint
    assert servers_of(config) == []


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is no address elsewhere")
def test_a_broker_listens_on_one_more_address_and_remembers_it(config):
    facts = embedded.start_broker(config, listen="127.0.0.2")
    embedded.stop_broker(config)

    assert embedded.start_broker(config).port == facts.port
    with connect(facts.url.replace("127.0.0.1", "127.0.0.2")) as client:
        assert client.ping()
    with pytest.raises(RelayqError, match=r"runs already, with address 127\.0\.0\.2"):
        embedded.start_broker(config, listen="127.0.0.1")


def test_a_broker_takes_the_asked_port_and_remembers_it(config):
    port = sockets.free_port("127.0.0.1")

    assert embedded.start_broker(config, port=port).port == port
    with pytest.raises(RelayqError, match=f"runs already, with port {port} and not {port + 1}"):
        embedded.start_broker(config, port=port + 1)
    embedded.stop_broker(config)
    assert embedded.start_broker(config).port == port


def test_a_stranger_on_the_port_gets_no_password_and_is_not_taken_for_the_broker(config):
    port = embedded.start_broker(config).port
    embedded.stop_broker(config)
    with socket.create_server(("127.0.0.1", port)) as stranger:
        stranger.settimeout(0.1)

        assert embedded.running_broker(config) is None
        with pytest.raises(RelayqError, match=f"port {port}: Address already in use"):
            embedded.start_broker(config)

        with pytest.raises(TimeoutError):
            stranger.accept()
