"""relayq broker: start, status, logs, backup, restore, with real servers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from relayq import config as configuration
from relayq import embedded
from relayq.config import Config
from relayq.embedded import ballast
from relayq.embedded.users import users
from relayq.errors import RelayqError
from relayq.store import connect
from tests.system.commands import begin, relayq
from tests.system.private.brokers import own_server, wheel_server
from tests.waiting import until

pytestmark = pytest.mark.system

EVERY_SETTING = {
    "appendonly": "yes",
    "appendfsync": "always",
    "aof-load-truncated": "yes",
    "aof-use-rdb-preamble": "yes",
    "save": "",
    "stop-writes-on-bgsave-error": "no",
    "maxmemory-policy": "noeviction",
    "protected-mode": "yes",
    "timeout": "0",
    "tcp-keepalive": "60",
    "maxclients": "4096",
    "lua-time-limit": "5000",
    "latency-monitor-threshold": "100",
    "hash-max-ziplist-value": "512",
    "repl-diskless-sync-delay": "0",
}


@pytest.fixture(params=["redis7", "redis62"])
def config(request, home: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A machine with the one or the other server."""
    path = own_server() if request.param == "redis7" else wheel_server()
    monkeypatch.setenv("RELAYQ_REDIS_SERVER", path)
    return configuration.load()


def owner(config: Config) -> Any:
    """Start the broker if it doesn't run, and return a connection that may do what can be done."""
    embedded.start_broker(config)
    return connect(embedded.admin_url(config)).connection


def test_every_setting_that_a_promise_rests_on_is_in_force(config):
    with owner(config) as client:
        found = {name: client.config_get(name)[name] for name in EVERY_SETTING}
        limits = client.config_get("client-output-buffer-limit")["client-output-buffer-limit"]
        memory = int(client.config_get("maxmemory")["maxmemory"])

    assert found == EVERY_SETTING
    assert limits.startswith("normal 268435456 134217728 60")
    assert memory == embedded.settings.memory_limit() > 0


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "DEBUG SLEEP 0",
        "REPLICAOF a 1",
        "MODULE LIST",
        "SWAPDB 0 1",
    ],
)
def test_commands_that_only_do_harm_are_refused(home, command):
    import redis

    with owner(configuration.load()) as client:
        with pytest.raises(redis.exceptions.ResponseError, match=r"no permissions|not allowed"):
            client.execute_command(*command.split())
        client.acl_log_reset()


def test_fsync_and_ballast_are_remembered(config):
    embedded.start_broker(config, fsync="everysec", ballast=1 << 20)
    embedded.stop_broker(config)

    with owner(config) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert (config.home / "broker" / "ballast").stat().st_size == 1 << 20
    with pytest.raises(RelayqError, match="with fsync everysec and not always"):
        embedded.start_broker(config, fsync="always")


def test_a_broker_without_ballast_has_none(home):
    assert relayq("broker", "start", "--ballast", "0").returncode == 0

    assert not (home / "broker" / "ballast").exists()


def test_a_ballast_is_made_only_where_there_is_room_in_plenty(tmp_path, monkeypatch):
    monkeypatch.setattr(ballast, "free", lambda folder: 100 << 20)

    ballast.restore(tmp_path, 64 << 20)
    assert not (tmp_path / "ballast").exists()
    ballast.restore(tmp_path, 8 << 20)
    assert (tmp_path / "ballast").stat().st_size == 8 << 20
    ballast.restore(tmp_path, 0)
    assert not (tmp_path / "ballast").exists()


def test_a_long_log_is_put_aside_at_the_next_start(home):
    config = configuration.load()
    embedded.start_broker(config)
    embedded.stop_broker(config)
    log = home / "broker" / "redis.log"
    with log.open("ab") as file:
        file.truncate(11_000_000)

    embedded.start_broker(config)

    assert (home / "broker" / "redis.log.1").stat().st_size == 11_000_000
    assert 0 < log.stat().st_size < 100_000


def test_status_tells_how_the_broker_fares(home):
    away = relayq("broker", "status")
    relayq("broker", "start")
    json_said = json.loads(relayq("broker", "status", "--json").stdout)["broker"]
    said = relayq("broker", "status").stdout

    assert away.returncode == 4
    assert "hint: relayq broker start" in away.stderr
    assert (json_said["private"], json_said["fsync"], json_said["aof_ok"]) == (True, "always", True)
    assert json_said["jobs"]["queued"] == 0
    assert json_said["disk_free"] > 0
    for words in ("Redis    ", "fsync always, last write ok", "Jobs     none", " free"):
        assert words in said


def test_logs_prints_the_end_and_follows(home):
    assert relayq("broker", "logs").returncode == 125
    relayq("broker", "start")

    assert len(relayq("broker", "logs", "-n", "2").stdout.splitlines()) == 2
    following = begin("broker", "logs", "-f", "-n", "1")
    try:
        assert following.stdout is not None
        assert following.stdout.readline()
        with (home / "broker" / "redis.log").open("a") as log:
            log.write("a new line\n")
        assert following.stdout.readline() == "a new line\n"
    finally:
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=10)


# In the foreground


def test_in_the_foreground_the_process_itself_is_the_broker(home):
    process = begin("broker", "start", "--foreground")
    config = configuration.load()
    try:
        facts = until(lambda: embedded.running_broker(config), within=15, what="the broker")

        assert facts.pid == process.pid
        second = relayq("broker", "start", "--foreground")
        assert second.returncode == 125
        assert f"runs already (pid {process.pid})" in second.stderr
        assert embedded.start_broker(config) == facts
    finally:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert embedded.running_broker(config) is None


def test_a_broker_in_the_foreground_is_stopped_like_any_other(home):
    process = begin("broker", "start", "--foreground")
    config = configuration.load()
    until(lambda: embedded.running_broker(config), within=15, what="the broker")

    assert relayq("broker", "stop").returncode == 0

    process.communicate(timeout=10)
    assert process.returncode == 0


# Users


def test_users_are_made_listed_and_removed_by_command(home):
    config = configuration.load()
    (_, _, place) = embedded.start_broker(config).url.rpartition("@")
    assert "relayq broker token" in relayq("broker", "users").stdout

    made = relayq("broker", "users", "add", "worker-pi4", "--host", "pi4")
    with connect(f"redis://worker-pi4:{made.stdout.strip()}@{place}").connection as worker:
        assert worker.ping()
    said = json.loads(relayq("broker", "users", "ls", "--json").stdout)["users"]

    assert [(one["name"], one["role"], one["host"]) for one in said] == [
        ("worker-pi4", "worker", "pi4")
    ]
    assert made.stdout.strip() not in relayq("broker", "users").stdout
    assert relayq("broker", "users", "rm", "worker-pi4").stdout == "removed worker-pi4\n"
    again = relayq("broker", "users", "rm", "worker-pi4")
    assert again.returncode == 125
    assert "has no user worker-pi4" in again.stderr
    assert users(config) == []


# Backups


def keep(config: Config, name: str) -> None:
    with owner(config) as client:
        client.set(name, "kept")


def kept(config: Config) -> set[bytes]:
    with owner(config) as client:
        return set(client.scan_iter("*"))


def test_a_backup_brings_back_what_was_there(config, tmp_path):
    keep(config, "before")
    saved = relayq("broker", "backup", "--json", str(tmp_path / "copy"))
    keep(config, "after")
    embedded.stop_broker(config)

    done = relayq("broker", "restore", "--json", str(tmp_path / "copy"))

    assert json.loads(saved.stdout)["size"] == (tmp_path / "copy").stat().st_size
    assert done.returncode == 0, done.stderr
    assert kept(config) == {b"before"}
    assert list(Path(json.loads(done.stdout)["aside"]).iterdir())
    # What is restored lasts, too.
    keep(config, "later")
    embedded.stop_broker(config)
    assert kept(config) == {b"before", b"later"}


def test_a_restore_that_is_killed_while_it_copies_leaves_the_data_as_they_were(config, tmp_path):
    keep(config, "before")
    embedded.stop_broker(config)
    with (tmp_path / "copy").open("wb") as file:
        file.write(b"REDIS0011")
        file.truncate(4 << 30)

    process = begin("broker", "restore", str(tmp_path / "copy"))
    copies = (config.home / "broker").glob
    until(lambda: any(one.stat().st_size > 1 << 20 for one in copies("*aof*")), what="a copy")
    process.kill()
    process.communicate(timeout=10)

    assert kept(config) == {b"before"}


def test_a_broker_that_runs_is_not_restored(home, tmp_path):
    config = configuration.load()
    keep(config, "before")
    relayq("broker", "backup", str(tmp_path / "copy"))

    done = relayq("broker", "restore", str(tmp_path / "copy"))

    assert done.returncode == 125
    assert "the broker runs" in done.stderr
    assert kept(config) == {b"before"}


@pytest.mark.parametrize("content", [b"", b"no backup", b"REDIS0011 but broken" + os.urandom(99)])
def test_what_is_no_backup_leaves_the_data_as_they_were(config, tmp_path, content):
    keep(config, "before")
    embedded.stop_broker(config)
    (tmp_path / "copy").write_bytes(content)

    done = relayq("broker", "restore", str(tmp_path / "copy"))

    assert done.returncode == 125
    assert kept(config) == {b"before"}
    assert not list((config.home / "broker").glob("data-before-*/*"))


def test_a_backup_replaces_no_file_unless_told_to(home, tmp_path):
    relayq("broker", "start")
    (tmp_path / "copy").write_text("precious")

    assert relayq("broker", "backup", str(tmp_path / "copy")).returncode == 2
    assert (tmp_path / "copy").read_text() == "precious"
    assert relayq("broker", "backup", "--force", str(tmp_path / "copy")).returncode == 0
    assert (tmp_path / "copy").read_bytes().startswith(b"REDIS")
