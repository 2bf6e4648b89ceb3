"""What is used up on three hosts that differ, and who of several gets a job."""

from __future__ import annotations

import pytest

from tests.system.fleet import Host
from tests.system.placing.three import (
    ALL,
    AT_ONCE,
    MOST,
    ask,
    ended_on,
    holding,
    known,
    record,
    state,
    submit,
    why,
)

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.media]


# What is used up


def test_slots_of_a_name_are_shared_and_no_more(client: Host) -> None:
    with holding(client, 1, resources={"cuda": 2}) as (holder,):
        id = client.relayq("submit", "--slot", "cuda=1", "true").out.strip()

        answer = why(client, id)["gpu-box"]
        assert state(client, id) == "queued"
        ask(client, "cancel", holder)
        ended_on(client, id)

    assert answer == ("busy", "0 cuda left of 2 cuda")


def test_memory_is_given_once(client: Host) -> None:
    whole = known(client)["mini"]["facts"]["memory_bytes"]
    most = f"{whole * 6 // 10 // 1_000_000}MB"
    with holding(client, 1, host="mini", memory=most) as (holder,):
        id = client.relayq("submit", "--on", "mini", "--memory", most, "true").out.strip()

        answer = why(client, id)["mini"]
        ask(client, "cancel", holder)
        ended_on(client, id)

    assert answer[0] == "busy"
    assert f"GB memory left of {whole / 1e9:.1f} GB memory" in answer[1]


def test_a_hosts_limit_of_a_kind_holds_until_a_job_of_it_ends(client: Host) -> None:
    with holding(client, 3, host="pi4") as (first, *_):
        id = submit(client, host="pi4")

        answer = why(client, id)["pi4"]
        ask(client, "cancel", first)
        ended_on(client, id)

    assert answer == ("busy", "3 of 3 run_command jobs at a time")


def test_the_fleets_limit_holds_until_any_job_ends(client: Host) -> None:
    with (
        holding(client, 3, host="pi4") as (first, *_),
        holding(client, 2, host="mini"),
        holding(client, 1, host="gpu-box"),
    ):
        id = submit(client, host="gpu-box")

        answer = why(client, id)["gpu-box"]
        ask(client, "cancel", first)
        ended_on(client, id)

    assert answer == ("busy", f"{MOST} of {MOST} jobs run in the whole fleet")


def test_a_key_is_one_job_at_a_time(client: Host) -> None:
    with holding(client, 1, unique="nightly", host="pi4") as (first,):
        again = client.relayq("submit", "--unique", "nightly", "--on", "mini", "true")

    assert again.out.strip() == first
    assert "goes on under the key 'nightly'; nothing was queued" in again.err


def test_a_job_that_nobody_takes_in_time_fails(client: Host) -> None:
    with holding(client, 2, host="mini"):
        done = client.relayq("run", "--on", "mini", "--expires", "1s", "true")

    assert done.status == 125
    assert "failed: expired: no host took it in time" in done.err


def test_no_job_sits_at_a_busy_host_while_another_is_idle(client: Host) -> None:
    with holding(client, 2, host="mini"), holding(client, 2, host="gpu-box"):
        for _ in range(4):
            id = submit(client)
            assert ended_on(client, id) == ["pi4"]
            one = record(client, id)
            assert one["started_at"] - one["created_at"] < AT_ONCE


# Strategies


@pytest.mark.parametrize("strategy", ["pull", "random"])
def test_any_host_may_get_a_job(strategy: str, client: Host) -> None:
    done = client.relayq("run", "--strategy", strategy, "uname -n")

    assert done.out.strip() in ALL


def test_the_least_loaded_host_gets_a_job(client: Host) -> None:
    with holding(client, 1, host="mini"), holding(client, 1, host="gpu-box"):
        assert client.relayq("run", "--strategy", "least-loaded", "uname -n").out == "pi4\n"


def test_each_host_gets_a_job_in_turn(client: Host) -> None:
    turns = ask(client, "submit", *[{"cmd": "true", "strategy": "round-robin"}] * 6)

    assert sorted(ended_on(client, *turns)) == sorted([*ALL] * 2)


def test_the_host_of_the_most_weight_gets_the_jobs(client: Host) -> None:
    picks = ask(client, "submit", *[{"cmd": "true", "strategy": "weighted"}] * 4)

    assert ended_on(client, *picks) == ["pi4"] * 4


def test_the_host_that_can_do_the_least_gets_a_job(client: Host) -> None:
    hosts = known(client)
    least = min(hosts, key=lambda name: (len(hosts[name]["capabilities"]), name))

    one = submit(client, strategy="capability-match")
    other = submit(client, strategy="capability-match", on="@heavy", needs="cuda")

    assert ended_on(client, one, other) == [least, "gpu-box"]


def test_pick_tells_where_a_job_would_go_and_queues_nothing(client: Host) -> None:
    before = client.relayq("ps", "-a", "--format", "{{.id}}").out

    picked = client.relayq("hosts", "pick", "--needs", "ffmpeg", "--strategy", "least-loaded")
    nowhere = client.relayq("hosts", "pick", "--needs", "ffmpeg,camera")

    assert picked.out.splitlines() == [
        "gpu-box  no       lacks ffmpeg",
        "mini     chosen   2 of 2 slots free",
        "pi4      no       lacks ffmpeg",
        "queue needs.ffmpeg,on=mini (least-loaded): mini has 20s, then needs.ffmpeg",
    ]
    assert nowhere.status == 125
    assert "mini lacks camera; pi4 lacks ffmpeg" in nowhere.err
    assert client.relayq("ps", "-a", "--format", "{{.id}}").out == before
