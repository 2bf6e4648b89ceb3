"""What doctor judges: values in, findings out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from relayq.doctor import Level, broker, fleet, machine, managers
from relayq.doctor.managers import Manager
from relayq.model.hosts import Host
from relayq.store.server import Connection, Server, ServerClock, server_from

NOW = datetime(2026, 11, 21, 12, 0, 0).timestamp()
INFO = {
    "redis_version": "7.0.15",
    "run_id": "abc",
    "tcp_port": 6379,
    "process_id": 7,
    "uptime_in_seconds": 86_400,
    "used_memory": 14_000_000,
    "maxmemory": 1_000_000_000,
    "maxmemory_policy": "noeviction",
    "connected_clients": 5,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "role": "master",
}
SETTINGS = {
    "appendfsync": "always",
    "maxclients": "4096",
    "timeout": "0",
    "bind": "127.0.0.1",
    "protected-mode": "yes",
}


def judged(info=(), settings=(), **options) -> dict[Level, list[str]]:
    server = server_from({**INFO, **dict(info)})
    found = broker.examine_server(
        "vm",
        server,
        {**SETTINGS, **dict(settings)},
        **{"is_private": False, "has_password": True, **options},
    )
    return by_level(found)


def by_level(findings) -> dict[Level, list[str]]:
    sorted_out: dict[Level, list[str]] = {level: [] for level in Level}
    for finding in findings:
        sorted_out[finding.level].append(finding.text)
        assert finding.level is Level.OK or finding.fix or "restarted" in finding.text
    return sorted_out


def test_a_broker_as_it_should_be_has_no_fault():
    found = judged()

    assert not found[Level.PROBLEM]
    assert not found[Level.WARNING]


@pytest.mark.parametrize(
    ("info", "settings", "words"),
    [
        ({"aof_enabled": 0}, {}, "the append-only file is off"),
        ({"aof_last_write_status": "err"}, {}, "could not write its append-only file"),
        ({"maxmemory_policy": "allkeys-lru"}, {}, "maxmemory-policy is allkeys-lru"),
        ({"used_memory": 1_000_000_001}, {}, "takes no new jobs"),
        ({"redis_version": "5.0.7"}, {}, "older than 6.2"),
        ({"role": "slave", "master_host": "a", "master_port": 1}, {}, "a replica of a:1"),
        ({}, {"appendfsync": "no"}, "half a minute"),
    ],
)
def test_what_breaks_a_promise_is_a_problem(info, settings, words):
    problems = judged(info, settings)[Level.PROBLEM]

    assert [text for text in problems if words in text]


@pytest.mark.parametrize(
    ("info", "settings", "words"),
    [
        ({"maxmemory": 0}, {}, "the kernel kills Redis"),
        ({"used_memory": 900_000_000}, {}, "memory 900 MB of 1000 MB"),
        ({"connected_clients": 4000}, {}, "4000 of 4096 connections"),
        ({"rdb_last_bgsave_status": "err"}, {}, "the last snapshot failed"),
        ({}, {"timeout": "60"}, "idle for 60 s"),
        ({}, {"aof-load-truncated": "no"}, "won't start by itself"),
    ],
)
def test_what_will_not_last_is_a_warning(info, settings, words):
    found = judged(info, settings)

    assert [text for text in found[Level.WARNING] if words in text]
    assert not found[Level.PROBLEM]


def test_a_fix_is_what_one_types_to_this_very_redis():
    def fixes(**options) -> set[str | None]:
        server = server_from({**INFO, "aof_enabled": 0})
        found = broker.examine_server("vm", server, SETTINGS, cli="redis-cli -p 7", **options)
        return {finding.fix for finding in found if finding.level is Level.PROBLEM}

    plain = "redis-cli -p 7 config set appendonly yes, then redis-cli -p 7 config rewrite"
    assert fixes(is_private=False, has_password=False) == {plain}
    secret = plain.replace(" config", " --askpass config")
    assert fixes(is_private=False, has_password=True) == {secret}
    (own,) = fixes(is_private=True, has_password=True)
    assert own is not None
    assert own.startswith("relayq broker stop, then relayq broker start")


def test_who_takes_all_the_connections_is_named():
    clients = [Connection(f"10.0.0.5:{port}", "", 1.0, 1.0, "get") for port in (1, 2)]

    (text,) = judged({"connected_clients": 4000}, clients=clients)[Level.WARNING]

    assert text == "4000 of 4096 connections are taken, 2 of them from 10.0.0.5"


def test_an_open_redis_without_a_password_is_a_problem():
    wide = {"bind": "* -::*", "protected-mode": "no"}

    assert judged(settings=wide, has_password=False)[Level.PROBLEM]
    assert not judged(settings=wide, has_password=True)[Level.PROBLEM]


def test_a_redis_that_tells_no_settings_is_judged_by_the_rest():
    found = broker.examine_server("vm", server_from(INFO), {}, is_private=False, has_password=True)

    assert not by_level(found)[Level.PROBLEM]


def test_a_slow_answer_is_a_warning():
    fast, slow = ServerClock(NOW, 0.0, 0.002), ServerClock(NOW, 0.0, 0.4)

    assert by_level(broker.examine_latency("vm", "7", fast, {}))[Level.OK]
    assert by_level(broker.examine_latency("vm", "7", slow, {}))[Level.WARNING]


def test_what_held_redis_up_is_named():
    said = ServerClock(NOW, 0.0, 0.002)

    found = by_level(broker.examine_latency("vm", "7", said, {"aof-fsync-always": 2.5}))

    assert found[Level.WARNING] == ["Redis was held up for 2.5 s by aof-fsync-always"]


@pytest.mark.parametrize(("offset", "word"), [(7200.0, "behind"), (-7200.0, "ahead of")])
def test_a_clock_that_is_off_is_a_warning(offset, word):
    said = ServerClock(at=NOW + offset, offset=offset, latency=0.001)

    (text,) = by_level(broker.examine_clock("vm", "pi4", said))[Level.WARNING]

    assert text == f"this clock is 7200.0 s {word} the broker's"


def test_an_offset_that_the_round_trip_may_explain_is_no_fault():
    said = ServerClock(at=NOW, offset=3.0, latency=4.0)

    assert not by_level(broker.examine_clock("vm", "pi4", said))[Level.WARNING]


# Restarts


def restarts(server: Server, run_id: str | None = "abc", **ended: int) -> dict[Level, list[str]]:
    return by_level(broker.examine_restarts("vm", server, run_id, ended_by=ended))


def test_a_redis_that_is_stopped_again_and_again_has_two_managers():
    found = restarts(server_from(INFO), SIGTERM=3)

    assert "stopped by SIGTERM 3 times in the last hour" in found[Level.PROBLEM][0]


def test_a_run_that_the_workers_have_not_seen_is_a_restart():
    young = replace(server_from(INFO), uptime=5.0)

    assert restarts(young, "another")[Level.WARNING]
    assert not restarts(young, "abc")[Level.WARNING]
    assert not restarts(young, None)[Level.WARNING]


def test_ends_are_counted_from_the_log_and_only_those_of_the_last_hour():
    log = (
        f"7:signal-handler ({NOW - 60:.0f}) Received SIGTERM scheduling shutdown...\n"
        f"7:signal-handler ({NOW - 90:.0f}) Received SIGTERM scheduling shutdown...\n"
        f"7:signal-handler ({NOW - 7200:.0f}) Received SIGTERM scheduling shutdown...\n"
        "7:M 21 Nov 2026 11:59:00.000 # Can't recover from AOF write error when the AOF fsync "
        "policy is 'always'. Exiting...\n"
        "7:M 21 Nov 2026 09:00:00.000 # Can't recover from AOF write error when ...\n"
        "7:M 21 Nov 2026 11:59:30.000 # Redis 7.0.15 crashed by signal: 11, si_code: 0\n"
        "7:M 21 Nov 2026 11:59:31.000 * Ready to accept connections\n"
    )

    assert managers.ends_in_log(log, NOW) == {"SIGTERM": 2, "disk full": 1, "crash": 1}


def test_a_log_of_another_sort_counts_nothing():
    assert set(managers.ends_in_log("7:M 21 Nov\0 garbage\n\xff", NOW).values()) == {0}


# Managers


def test_managers_are_found_wherever_they_hide():
    answers = {
        "units": (
            "redis-server.service      loaded active   running Advanced key-value store\n"
            "● redis-sentinel.service  loaded inactive dead    Sentinel\n"
            "redis-monitor.timer       loaded active   waiting watchdog\n"
            "ssh.service               loaded active   running OpenBSD Secure Shell\n"
        ),
        "crontab": "# redis\n*/5 * * * * systemctl restart redis\n0 1 * * * backup redis\n",
        "cron files": "/etc/cron.d/watch: * * * * * root pgrep redis-server || redis-server -D\n",
        "launchd": "123\t0\thomebrew.mxcl.redis\n-\t0\tcom.apple.something\n",
        "processes": (
            " 10 /usr/bin/redis-server 127.0.0.1:6379\n"
            " 11 bash -c while true; do pgrep redis || start-it; done\n"
            " 12 python redis_watchdog.py\n"
            " 13 grep redis-watch\n"
        ),
    }

    found = managers.managers(answers)

    assert [(one.kind, one.is_active) for one in found] == [
        ("unit", True),
        ("unit", False),
        ("timer", True),
        ("cron", True),
        ("cron", True),
        ("launchd", True),
        ("watchdog", True),
        ("watchdog", True),
    ]


def test_no_answers_are_no_managers():
    assert managers.managers({}) == []


def test_two_managers_of_one_redis_are_a_problem():
    unit, cron = Manager("unit", "redis-server.service"), Manager("cron", "restart redis")

    assert by_level(managers.examine_managers("vm", [unit, cron], is_private=False))[Level.PROBLEM]
    assert not list(managers.examine_managers("vm", [unit], is_private=False))
    assert not list(
        managers.examine_managers("vm", [unit, replace(cron, is_active=False)], is_private=False)
    )


def test_the_distributions_service_is_no_rival_of_a_private_broker_but_a_watchdog_is():
    unit, dog = Manager("unit", "redis-server.service"), Manager("watchdog", "pid 9: redis-watch")

    assert not list(managers.examine_managers("vm", [unit], is_private=True))
    assert by_level(managers.examine_managers("vm", [unit, dog], is_private=True))[Level.WARNING]


def test_relayqs_own_units_that_failed_are_found():
    units = (
        "● relayq-worker.service loaded failed failed relayq's worker\n"
        "ssh.service loaded active running ssh\n"
    )

    assert managers.failed_units(units) == ["relayq-worker.service"]


# Hosts


def host(name: str, **options) -> Host:
    fields = {
        "install": "i",
        "boot": "b",
        "slots": 2,
        "seen_at": NOW - 1,
        "is_online": True,
        "version": "1.0",
        "facts": {"clock": NOW - 1},
    }
    return Host(name=name, **{**fields, **options})


def hosts(*some: Host) -> dict[Level, list[str]]:
    return by_level(fleet.examine_hosts(some, version="1.0", now=NOW, here="vm"))


def test_a_fleet_as_it_should_be_has_no_fault():
    found = hosts(host("vm"), host("pi4"))

    assert not found[Level.PROBLEM] + found[Level.WARNING]


def test_without_an_online_host_nothing_runs():
    found = hosts(host("pi4", is_online=False, seen_at=NOW - 7200, queued=3))

    assert found[Level.PROBLEM] == ["no host is online: nothing runs any job"]
    assert found[Level.WARNING] == ["offline, last heard of 2 h ago, and 3 jobs wait for it"]


def test_a_host_that_is_long_gone_is_no_news():
    found = hosts(host("vm"), host("old", is_online=False, seen_at=NOW - 30 * 86_400))

    assert not found[Level.WARNING]


def test_another_version_is_a_warning():
    assert hosts(host("vm"), host("pi4", version="0.9"))[Level.WARNING] == [
        "relayq 0.9 there, 1.0 on vm"
    ]


def test_a_hosts_clock_is_compared_with_its_heartbeat():
    off = host("pi4", facts={"clock": NOW - 1 - 3600})

    assert hosts(host("vm"), off)[Level.WARNING] == ["its clock is 3600.0 s behind the broker's"]


# Disks


@pytest.mark.parametrize(
    ("free", "total", "files", "level"),
    [
        (50e9, 100e9, 0.5, Level.OK),
        (12e9, 100e9, 0.5, Level.OK),
        (9e9, 100e9, 0.5, Level.WARNING),
        (100e6, 100e9, 0.5, Level.PROBLEM),
        (1e6, 40e6, 0.5, Level.PROBLEM),
        (50e9, 100e9, 0.0, Level.PROBLEM),
    ],
)
def test_room_is_short_by_share_and_by_size(free, total, files, level):
    has = machine.Room(Path("/"), int(free), int(total), files)

    assert machine.judge_room(has, "vm").level is level


def test_the_room_of_a_real_disk_is_told():
    has = machine.room(Path("/"))

    assert 0 < has.free <= has.total
    assert 0 < has.files <= 1


@pytest.mark.parametrize(
    ("taken", "fsync", "level", "words"),
    [
        (0.001, "always", Level.OK, "1.00 ms"),
        (0.030, "always", Level.WARNING, "everysec would be wiser"),
        (0.030, "everysec", Level.OK, "30.00 ms"),
        (0.001, "everysec", Level.OK, "would cost little"),
    ],
)
def test_a_slow_disk_is_better_off_with_everysec(monkeypatch, tmp_path, taken, fsync, level, words):
    monkeypatch.setattr(machine, "measure_fsync", lambda folder: taken)

    (finding,) = machine.examine_fsync(tmp_path, "vm", fsync)

    assert finding.level is level
    assert words in finding.text


def test_measuring_leaves_nothing(tmp_path):
    assert machine.measure_fsync(tmp_path) > 0
    assert not list(tmp_path.iterdir())
