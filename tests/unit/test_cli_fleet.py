"""What the command line shows of hosts and counts: pure rendering."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from relayq.cli import fleet, imports, tables, top, why
from relayq.errors import ConfigError
from relayq.model.answers import HostAnswer
from relayq.model.hosts import Host
from relayq.model.stats import Tally, grouped, tallies

HOST = Host(
    "mini",
    "i",
    "b",
    slots=4,
    seen_at=1000.0,
    is_online=True,
    active=1,
    queued=2,
    finished=9,
    version="1.0",
    facts={"os": "linux", "load": 0.42, "cpu": 12.5},
)


def table(*hosts: Host, last_day=None) -> list[dict[str, str]]:
    columns, rows = fleet.host_table(hosts, 1042.0, last_day or {})
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_a_host_has_a_row_without_columns_that_say_nothing():
    assert table(HOST, last_day={"mini": (41, 1)}) == [
        {
            "HOST": "mini",
            "STATE": "online busy",
            "SLOTS": "1/4",
            "CPU": "12%",
            "LOAD": "0.4",
            "DONE/FAIL 24h": "41/1",
            "TYPE": "linux",
            "SEEN": "42s ago",
        }
    ]


def test_a_host_that_is_away_has_no_load():
    [here, away] = table(HOST, replace(HOST, name="pi4", is_online=False))

    assert (here["LOAD"], here["CPU"]) == ("0.4", "12%")
    assert (away["STATE"], away["LOAD"], away["CPU"]) == ("offline", "-", "-")


@pytest.mark.parametrize(
    ("facts", "column", "shown"),
    [
        ({"cpu": {"own": 88.2, "others": 6.1}}, "CPU", "88%/6%"),
        ({"power": {"plugged": True, "percent": 80}}, "ON", "ac"),
        ({"power": {"plugged": False, "percent": 38.4}}, "ON", "bat 38%"),
        (
            {"courtesy": {"state": "frozen", "reason": "owner active"}},
            "STATE",
            "paused (owner active)",
        ),
        ({"model": "Raspberry Pi 4 Model B"}, "TYPE", "Raspberry Pi 4 Model B"),
        (
            {
                "labels": ["heavy"],
                "resources": {"cuda": 1},
                "capabilities": ["linux", "git", "ffmpeg", "cuda", "kind:run_command", "claude"],
            },
            "CAN",
            "@heavy cuda:1 ffmpeg claude",
        ),
    ],
)
def test_a_fact_has_its_column(facts, column, shown):
    [row] = table(replace(HOST, facts=facts))

    assert row[column] == shown


def test_what_was_done_under_former_names_counts():
    host = replace(HOST, facts={"aliases": ["old", "older"]})

    assert fleet.of_last_day(host, {"mini": (1, 0), "old": (2, 1), "other": (9, 9)}) == (3, 1)


def test_a_drained_host_says_why_and_since_when():
    host = replace(HOST, drained_at=1000.0, drained_reason="a new disk", active=0)

    assert table(host)[0]["STATE"] == "drained (a new disk)"
    shown = fleet.host_as_json(host)
    assert (shown["state"], shown["reason"]) == ("drained", "a new disk")
    assert shown["drained_at"] == "1970-01-01T00:16:40.000Z"


def test_the_details_of_a_host_have_no_empty_lines():
    facts = {
        "os": "linux",
        "arch": "arm64",
        "cpus": 4,
        "memory_bytes": 4_000_000_000,
        "disk_bytes": 64_000_000_000,
        "disk_free_bytes": 6_000_000_000,
        "tools": {"git": "2.39", "gradle": ""},
        "agents": {"claude": {"version": "2.1", "logged_in": False}},
        "limits": {"transcode": 1},
        "python": "3.11.7",
        "load": 0.42,
        "memory_free_bytes": 3_000_000_000,
        "power": {"plugged": False, "percent": 38.4},
    }

    lines = fleet.host_details(replace(HOST, facts=facts), 1042.0, {"mini": (3, 1)})

    text = "\n".join(lines)
    assert click.unstyle(lines[0]) == "mini  online busy  seen 42s ago"
    assert "  Now       load 0.4, 3 GB memory free, on battery 38%" in lines
    assert "  Size      4 CPUs, 4 GB memory, 6 GB of 64 GB disk free" in lines
    assert "  Tools     git 2.39, gradle" in lines
    assert "  Agents    claude 2.1 (not logged in)" in lines
    assert "  Limits    transcode 1" in lines
    assert "Graphics" not in text
    assert "Aliases" not in text


def test_the_details_of_a_host_are_folded_below_each_other():
    capable = replace(HOST, facts={"capabilities": [f"tool-{n}" for n in range(60)]})

    lines = fleet.host_details(capable, 1042.0, {}, width=40)

    can = lines.index(next(line for line in lines if line.startswith("  Can")))
    assert lines[can] == "  Can       tool-0, tool-1, tool-2,"
    assert lines[can + 1].startswith(" " * 12 + "tool-")
    assert max(len(click.unstyle(line)) for line in lines) <= 40


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_reason_leaves_room_for_the_host(width):
    drained = replace(HOST, drained_at=1000.0, drained_reason="a new disk, " * 20)
    columns, rows = fleet.host_table([drained, HOST], 1042.0, {})

    lines = [click.unstyle(line) for line in tables.laid_out(columns, rows, width)]

    assert lines[1].startswith("mini  draining (a new")
    assert max(map(tables.width_of, lines)) <= width


def test_what_a_host_says_moves_no_cursor():
    evil = "\x1b[2J\x1b]0;title\x07[bold]\u202eup\nline"
    facts = {"model": evil, "labels": [evil], "capabilities": [evil], "tools": {evil: evil}}
    host = replace(HOST, name="mini", facts=facts, drained_at=1.0, drained_reason=evil)
    columns, rows = fleet.host_table([host], 1042.0, {})

    shown = [*tables.laid_out(columns, rows, None), *fleet.host_details(host, 1042.0, {})]

    assert all(character.isprintable() for line in shown for character in click.unstyle(line))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_of_hosts_is_wider_than_the_terminal(width):
    capable = replace(HOST, facts={"capabilities": [f"tool{n}" for n in range(60)]})
    columns, rows = fleet.host_table([capable, HOST], 1042.0, {})

    lines = [click.unstyle(line) for line in tables.laid_out(columns, rows, width)]

    assert max(map(tables.width_of, lines)) <= width
    assert lines[1].startswith("mini")


# Counts


def test_rows_become_tallies_by_host_and_kind():
    rows = [
        ("pi4", "a", "succeeded", 2),
        ("pi4", "a", "run_ms", 3000),
        ("pi4", "a", "timed", 2),
        ("pi4", "b", "failed", 1),
        ("pi4", "a", "succeeded", 1),
    ]

    found = tallies(rows)

    assert found["pi4", "a"] == Tally(succeeded=3, timed=2, run_time=3.0)
    assert found["pi4", "b"] == Tally(failed=1)


def test_tallies_are_grouped_by_host_under_its_present_name_or_by_kind():
    found = {("old", "a"): Tally(1), ("new", "a"): Tally(2), ("new", "b"): Tally(4)}

    assert grouped(found, "host", {"old": "new"}) == {"new": Tally(7)}
    assert grouped(found, "kind", {}) == {"a": Tally(3), "b": Tally(4)}


def test_a_row_of_stats_reads_well():
    tally = Tally(succeeded=3, failed=1, timed=4, run_time=8.0, waited=4, wait_time=2.0)

    assert fleet.stats_row(tally) == ["3", "1", "0", "0", "0", "75%", "2.0s", "0.5s"]
    assert fleet.stats_row(Tally())[-3:] == ["-", "-", "-"]
    assert fleet.stats_as_json(tally)["success_rate"] == 0.75


# machines.yaml


def machines(tmp_path, text: str) -> tuple[dict, list[str]]:
    file = tmp_path / "machines.yaml"
    file.write_text(text)
    remarks: list[str] = []
    return imports.read_machines(file, remarks), remarks


def test_machines_become_entries(tmp_path):
    entries, remarks = machines(
        tmp_path,
        """\
machines:
  macbook-pro:
    tailscale_ip: "YOUR_MACBOOK_TAILSCALE_IP"
    role: orchestrator
  mac-mini:
    tailscale_ip: "100.64.0.5"
    os: macos
    aliases: ["old-hostname"]    # historical names
    capabilities:
      - ios_build
      - xcode
    agents: [claude]
    worker_port: 8001
""",
    )

    assert entries == {
        "macbook-pro": {},
        "mac-mini": {
            "address": "100.64.0.5",
            "aliases": ["old-hostname"],
            "capabilities": ["ios_build", "xcode", "agent:claude"],
        },
    }
    assert remarks[0] == "macbook-pro has no address in the file, only a placeholder"
    assert [remark.split()[0] for remark in remarks[1:]] == ["role", "os", "worker_port"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fleet: {}", "expected a table of machines"),
        ("machines: {}", "there is no machine in it"),
        ("machines: [a]", "expected 'key: value', got a list"),
        ("machines: {a: {tailscale_ip: [1]}}", "expected one value, got a list"),
    ],
)
def test_what_is_no_list_of_machines_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        machines(tmp_path, text)


def test_what_is_not_known_is_remarked(tmp_path):
    _, [remark] = machines(tmp_path, "machines: {a: {colour: red}}")

    assert "colour isn't known" in remark


def test_a_narrow_screen_leaves_out_the_broker_and_no_count():
    head = [
        "relayq 1.0",
        "broker pi:6379 (redis 7.0.15, aof on, 1 ms, 14 MB)",
        "4 online",
        "queue 3",
    ]

    assert top._headline(head, 200) == " . ".join(head)
    assert top._headline(head, 60) == "relayq 1.0 . 4 online . queue 3"


def test_many_hosts_that_say_the_same_share_a_line():
    told = [HostAnswer("a", "busy", "2 of 2 slots busy")]
    told += [HostAnswer(f"pi{number}", "no", "lacks cuda") for number in range(9)]

    assert [who for who, _ in why._grouped(told)] == ["a", "pi0, pi1, 7 more"]
    assert [who for who, _ in why._grouped(told[:4])] == ["a", "pi0", "pi1", "pi2"]
