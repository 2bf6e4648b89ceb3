"""relayq doctor: each fault made for real, on a private fleet."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from relayq import config as configuration
from relayq import embedded
from relayq.store import Store, connect
from tests.system.commands import environ, relayq
from tests.waiting import until

pytestmark = pytest.mark.system


def doctor(*arguments: str, **env: str) -> tuple[int, list[dict]]:
    """Return the exit code and the findings."""
    done = relayq("doctor", "--json", *arguments, env={**environ(), **env})
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(done.stdout)
    assert said["problems"] == sum(
        f["level"] == "problem" and not f["mended"] for f in said["findings"]
    )
    assert done.returncode == (1 if said["problems"] else 0)
    return done.returncode, said["findings"]


def faults(*arguments: str, **env: str) -> dict[str, str]:
    """Return the texts of what is no good, with their levels, echo jobs left out."""
    _, findings = doctor("--no-job", *arguments, **env)
    return {f["text"]: f["level"] for f in findings if f["level"] != "ok"}


def has(found: dict[str, str], words: str, level: str = "problem") -> bool:
    return any(words in text and level == of for text, of in found.items())


@pytest.fixture
def broker(home: Path) -> embedded.BrokerFacts:
    return embedded.start_broker(configuration.load())


def owner() -> Store:
    """Return the broker as its owner has it."""
    return connect(embedded.admin_url(configuration.load()))


def test_a_healthy_machine_is_ok_from_redis_to_an_echo_job(fleet):
    done = relayq("doctor")

    assert done.returncode == 0, done.stdout
    assert "0 problems" in done.stdout
    order = ["configuration valid", "redis ", "worker ", "hosts online", "echo job", "clock within"]
    places = [done.stdout.index(words) for words in order]
    assert places == sorted(places)
    assert "round trip" in done.stdout
    # Nothing is left of the echo job.
    assert json.loads(relayq("ps", "-a", "--json").stdout)["jobs"] == []


def test_without_a_broker_it_says_what_to_type_and_starts_nothing(home):
    code, findings = doctor()

    (problem,) = [f for f in findings if f["level"] == "problem"]
    assert (code, problem["fix"]) == (1, "relayq up")
    assert "no broker runs here" in problem["text"]
    assert embedded.running_broker(configuration.load()) is None


def test_a_private_broker_that_died_is_told_from_one_that_was_stopped(broker):
    os.kill(broker.pid, signal.SIGKILL)
    until(lambda: embedded.is_dead(configuration.load()), what="the broker to die")

    assert has(faults(), "private broker died")


def test_a_port_that_another_program_took_is_named(broker):
    embedded.stop_broker(configuration.load())
    with socket.create_server(("127.0.0.1", broker.port)):
        assert has(faults(), f"another program listens on the private broker's port {broker.port}")


def test_a_configured_broker_that_does_not_answer_is_a_problem(home):
    assert has(faults(RELAYQ_BROKER__PORT="1"), "can't reach the broker")


def test_a_broken_configuration_is_shown_with_its_place(home):
    (home / "config.yml").write_text("worker:\n  prioritee: low\n")

    assert has(faults(), "config.yml:2:3: unknown key 'worker.prioritee'")


def test_a_host_that_is_online_and_runs_nothing_is_found_by_its_echo_job(fleet):
    os.kill(fleet.worker.pid, signal.SIGSTOP)
    try:
        _, findings = doctor("--timeout", "1s")
    finally:
        os.kill(fleet.worker.pid, signal.SIGCONT)

    assert [f for f in findings if "didn't come back within 1 s" in f["text"]]
    until(
        lambda: (
            json.loads(relayq("ps", "-a", "--json").stdout)["jobs"] == []
            or relayq("rm", "--all", "-y")
        ),
        what="nothing to be left",
    )


def test_no_worker_is_a_problem_for_the_fleet_and_a_warning_here(broker):
    found = faults()

    assert has(found, "no host is online: nothing runs any job")
    assert has(found, "no worker runs here", "warning")


def test_settings_that_break_a_promise_are_found(broker):
    with owner().connection as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "0")
        client.config_set("timeout", "30")

    found = faults()

    assert has(found, "the append-only file is off")
    assert has(found, "maxmemory-policy is allkeys-lru")
    assert has(found, "maxmemory isn't set", "warning")
    assert has(found, "idle for 30 s", "warning")


def test_a_broker_out_of_memory_is_found(broker):
    with owner().connection as client:
        client.config_set("maxmemory", "1")

        assert has(faults(), "takes no new jobs")


def test_a_key_that_others_can_read_is_mended_when_asked(fleet, home):
    key = home / "fleet.key"
    key.chmod(0o644)

    assert has(faults(), "others can read the fleet's key")
    assert key.stat().st_mode & 0o777 == 0o644
    _, findings = doctor("--no-job", "--fix")

    (mended,) = [f for f in findings if f["mended"]]
    assert "others can read the fleet's key" in mended["text"]
    assert key.stat().st_mode & 0o777 == 0o600
    assert not has(faults(), "fleet's key")


def test_another_fleets_key_and_a_missing_one_are_found(fleet, home):
    (home / "fleet.key").write_text("ab" * 32)
    assert has(faults(), "the broker's jobs are signed with")

    (home / "fleet.key").write_text("no key")
    assert has(faults(), "isn't a fleet key")

    (home / "fleet.key").unlink()
    assert has(faults(), "is missing, and the broker's jobs are signed with one")
    assert not (home / "fleet.key").exists()


def test_a_home_that_others_write_and_a_missing_spool_are_mended(broker, home):
    home.chmod(0o777)

    assert has(faults(), "others can write into")
    assert has(faults(), f"{home}/spool is missing", "warning")
    doctor("--no-job", "--fix")

    assert home.stat().st_mode & 0o777 == 0o755
    assert (home / "spool").stat().st_mode & 0o777 == 0o700


def test_a_broker_without_its_ballast_is_warned_of(broker, home):
    (home / "broker" / "ballast").unlink()

    assert has(faults(), "has no ballast", "warning")


@pytest.mark.root
def test_a_disk_that_is_full_is_found(broker, home):
    (home / "spool").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", home / "spool"], check=True)
    try:
        (home / "spool" / "filler").write_bytes(b"\0" * (2_040_000))

        assert has(faults(), f"full at {home}/spool")
    finally:
        subprocess.run(["umount", "-l", home / "spool"], check=True)


def test_a_second_manager_is_found_where_the_machine_says_so(tmp_path, broker, home):
    url = broker.url.rpartition("@")
    password = url[0].rpartition(":")[2]
    fakes = {
        "systemctl": "echo 'redis-server.service loaded active running Redis'",
        "crontab": "echo '* * * * * systemctl restart redis'",
    }
    for name, line in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)

    found = faults(
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        RELAYQ_BROKER__PORT=str(broker.port),
        RELAYQ_BROKER__USER="local",
        RELAYQ_BROKER__PASSWORD=password,
    )

    assert has(found, "several things manage Redis here: unit redis-server.service, cron")


def test_a_private_broker_that_something_ends_is_found_by_its_log(broker, home):
    config = configuration.load()
    for _ in range(2):
        pid = embedded.start_broker(config).pid
        os.kill(pid, signal.SIGTERM)
        until(lambda: embedded.is_dead(config), what="the broker to end")
    embedded.start_broker(config)

    assert has(faults(), "stopped by SIGTERM 2 times in the last hour")
