"""What a client may ask of three hosts that differ: who gets a job, and who doesn't."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.system.fleet import Host
from tests.system.placing.three import ALL, ask, ended_on, holding, known, record, submit, why

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.media]


# What hosts are and have


def test_each_host_says_what_was_found_on_it_and_what_it_declares(client: Host) -> None:
    hosts = known(client)

    capabilities = {name: set(host["capabilities"]) for name, host in hosts.items()}
    assert {name for name in ALL if "ffmpeg" in capabilities[name]} == {"mini"}
    assert {name for name in ALL if "cuda" in capabilities[name]} == {"gpu-box"}
    assert {name for name in ALL if "camera" in capabilities[name]} == {"pi4"}
    assert "gcc" not in capabilities["gpu-box"]
    assert hosts["gpu-box"]["facts"]["resources"] == {"cuda": 2, "gpu": 1}
    assert hosts["gpu-box"]["facts"]["gpus"][0]["name"] == "NVIDIA GeForce RTX 3090"


@pytest.mark.parametrize(
    ("asked", "may"),
    [
        ("--on mini", {"mini"}),
        ("--on Mini", {"mini"}),
        ("--on mac", {"mini"}),
        ("--on p*", {"pi4"}),
        ("--on @heavy", {"mini", "gpu-box"}),
        ("--on rpi,@desk", {"mini", "pi4"}),
        ("--on any", ALL),
        ("--needs ffmpeg", {"mini"}),
        ("--needs sonar", {"gpu-box"}),
        ("--needs sonar:large,@heavy", {"gpu-box"}),
        ("--needs FFmpeg --needs linux", {"mini"}),
        ("--not mini,gpu-*", {"pi4"}),
        ("--not @heavy", {"pi4"}),
        ("--not mac", {"pi4", "gpu-box"}),
        ("--on @heavy --not gpu-box", {"mini"}),
        ("--gpu 1", {"gpu-box"}),
        ("--slot cuda=2", {"gpu-box"}),
        ("--slot cuda", {"gpu-box"}),
        ("--memory 64MB --needs camera", {"pi4"}),
        ("--prefer rpi", {"pi4"}),
        ("--prefer mini --needs camera", {"pi4"}),
        ("--prefer nosuch", ALL),
    ],
)
def test_a_job_runs_on_a_host_that_it_may(asked: str, may: set[str], client: Host) -> None:
    done = client.relayq("run", *asked.split(), "uname -n")

    assert done.status == 0
    assert done.out.strip() in may


def test_the_python_client_asks_the_same(client: Host) -> None:
    script = """
from relayq import Unplaceable, job
for result in (
    job.run("uname -n", needs="camera"),
    job.run("uname -n", on=["@desk"], excluded="gpu-*"),
    job.run_on("mac", "uname -n"),
    job.run_on_rpi("uname -n"),
):
    print(result.get(timeout=30))
try:
    job.run("true", needs=["camera", "ffmpeg"])
except Unplaceable as error:
    print(error.missing)
"""

    done = client.start(sys.executable, "-c", script).finish()

    *names, refusal = done.out.splitlines()
    assert names == ["pi4", "mini", "mini", "pi4"]
    assert ast.literal_eval(refusal) == {
        "gpu-box": ["lacks camera", "lacks ffmpeg"],
        "mini": ["lacks camera"],
        "pi4": ["lacks ffmpeg"],
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--needs warp", "gpu-box lacks warp; mini lacks warp; pi4 lacks warp"),
        (
            "--needs ffmpeg --not mac",
            "gpu-box lacks ffmpeg; mini is excluded by mac; pi4 lacks ffmpeg",
        ),
        ("--gpu 2", "gpu-box has 1 of 2 gpu; mini has no gpu; pi4 has no gpu"),
        ("--on @moon", "has no label moon"),
        ("--on x*", "pi4 is not x*"),
        ("--memory 900GB", "of 900.0 GB memory"),
        ("--on nosuch", "no such host: nosuch (known hosts: gpu-box, mini, pi4)"),
        ("--on pi4,", "a host can't be ''"),
        ("--with nosuch", "no such job: nosuch"),
        ("--slot cuda=0", "N from 1 on: cuda=0"),
    ],
)
def test_what_no_host_can_is_refused_at_once(asked: str, said: str, client: Host) -> None:
    done = client.relayq("run", *asked.split(), "true")

    assert done.status == 125
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--strategy best", "'best' is not one of 'pull', 'least-loaded'"),
        ("--slot =1", "expected NAME=N, such as cuda=1"),
        ("--on all --unique x", "--unique means one job"),
        ("--on all --with last", "--with means one host"),
        ("--expires tomorrow", "expected a duration"),
    ],
)
def test_what_was_mistyped_is_said(asked: str, said: str, client: Host) -> None:
    done = client.relayq("run", *asked.split(), "true")

    assert done.status == 2
    assert said in done.err


# One job for each host


def test_all_means_one_job_for_each_host_and_a_table(client: Host) -> None:
    done = client.relayq("run", "--on", "all", 'uname -n; [ "$(uname -n)" != pi4 ] || exit 4')

    head, *rows = [line.split() for line in done.out.splitlines()]
    assert head == ["HOST", "ID", "STATE", "EXIT", "TIME", "LAST", "LINE"]
    assert [(row[0], row[2], row[3], row[-1]) for row in rows] == [
        ("gpu-box", "succeeded", "0", "gpu-box"),
        ("mini", "succeeded", "0", "mini"),
        ("pi4", "failed", "4", "pi4"),
    ]
    assert done.status == 4


def test_each_host_of_some_gets_a_job(client: Host) -> None:
    detached = client.relayq("submit", "--on", "all,@heavy", "--not", "mac", "true")
    planned = client.relayq("run", "--on", "all", "--needs", "linux", "--dry-run", "true")

    assert [line.split()[1] for line in detached.out.splitlines()] == ["gpu-box"]
    assert [line.split()[0] for line in planned.out.splitlines()[:3]] == ["gpu-box", "mini", "pi4"]
    assert planned.err == "relayq: nothing was queued (--dry-run)\n"


# Who waits for what


def test_a_job_for_a_host_to_come_runs_when_a_host_gets_its_label(client: Host) -> None:
    id = client.relayq("submit", "--on", "@moon", "--wait-for-host", "true").out.strip()

    assert why(client, id)["pi4"] == ("no", "has no label moon")
    assert client.relayq("hosts", "label", "rpi", "+moon").out == "pi4  labels: battery, moon\n"
    try:
        assert ended_on(client, id) == ["pi4"]
    finally:
        assert client.relayq("hosts", "label", "pi4", "=moon").out == "pi4  labels: battery\n"


def test_a_job_shares_the_host_of_another_one(client: Host) -> None:
    with holding(client, 2, host="gpu-box"):
        leader = submit(client, needs="cuda")
        follower = client.relayq("submit", "--with", leader, "true").out.strip()
        told = client.relayq("why", follower).out
    assert ended_on(client, leader, follower) == ["gpu-box"] * 2

    assert "is queued" in told
    assert f"Options: relayq why {leader} . " in told
    refused = client.relayq("run", "--with", leader, "--needs", "ffmpeg", "true")
    assert refused.status == 125
    assert f"it is to run where {leader} does, and gpu-box lacks ffmpeg" in refused.err
    both = client.relayq("run", "--with", leader, "--on", "mini", "true")
    assert "a job has a with_job or a host, not both" in both.err


def test_a_job_waits_for_the_host_it_prefers_and_then_for_any(client: Host) -> None:
    with holding(client, 2, host="mini"):
        prefers = ["--prefer", "mac", "--overflow", "3s"]
        id = client.relayq("submit", *prefers, "true").out.strip()

        answers = why(client, id)
        assert ended_on(client, id) != ["mini"]

    assert answers["mini"][0] == "busy"
    assert answers["pi4"][0] == "later"
    assert "it waits for mini first" in answers["pi4"][1]


def test_jobs_start_by_their_priority_and_a_waiting_one_can_be_given_another(client: Host) -> None:
    with holding(client, 2, host="mini") as (_, second):
        ids = {
            word: client.relayq("submit", "--on", "mini", "--prio", word, "true").out.strip()
            for word in ("low", "normal", "high")
        }
        moved = client.relayq("move", ids["low"], "--prio", "urgent")
        ask(client, "cancel", second)
        ended_on(client, *ids.values())

    assert moved.out == f"{ids['low']}  ->mini  priority 10\n"
    started = {word: record(client, id)["started_at"] for word, id in ids.items()}
    assert sorted(started, key=started.__getitem__) == ["low", "high", "normal"]


def test_a_waiting_job_can_be_sent_elsewhere(client: Host) -> None:
    with holding(client, 2, host="mini"):
        ids = [submit(client, host="mini") for _ in range(3)]
        refused = client.relayq("move", ids[0], "nosuch")
        for id, to in zip(ids, (["rpi"], ["@heavy"], ["--needs", "camera"]), strict=True):
            assert client.relayq("move", id, *to).status == 0
        assert ended_on(client, *ids) == ["pi4", "gpu-box", "pi4"]

    assert refused.status == 125
    assert "no such host: nosuch" in refused.err
