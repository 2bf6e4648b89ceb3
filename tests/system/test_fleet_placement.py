"""Three machines that differ, and what a client may ask of them: who gets a job, and who doesn't.

All by real commands on the client's host. `mini` alone finds ffmpeg, `gpu-box` finds a card by
its maker's tool; the rest is declared.
"""

from __future__ import annotations

import ast
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import missing
from tests.system import fleet as fleets
from tests.system.conftest import SCALED
from tests.system.fleet import Command, Fleet, Host
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.media]

#: How long a job may take to start on an idle host: a second, and this machine's other load.
AT_ONCE = 4.0
#: All slots of the fleet are more.
MOST = 6
HOSTS = {
    "mini": "max_concurrent: 2, aliases: [mac], labels: [heavy, desk], "
    "wake: {mac: '02:00:00:00:00:aa', via: [pi4]}, address: root@mini",
    "pi4": "max_concurrent: 4, capabilities: [camera], labels: [battery], aliases: [rpi], "
    "weight: 1000000, limits: {run_command: 3}",
    "gpu-box": "max_concurrent: 2, labels: [heavy], resources: {cuda: 2}, "
    "capabilities: [whisper:large, -gcc]",
}
ALL = {*HOSTS}
CARD = "echo 'NVIDIA GeForce RTX 3090, 24576 MiB, 535.104.05'"
#: A Python client that stays: what isn't itself in question needn't start a process each time.
AGENT = """
import json, socket
from relayq import job

def submit(*asked):
    return [job.run(**one).id for one in asked]

def records(*ids):
    return [job.fetch(id).record.as_dict() for id in ids]

def wait(*ids):
    return [job.fetch(id).wait(timeout=40).host for id in ids]

def cancel(*ids):
    return [job.fetch(id).cancel() for id in ids]

with socket.socket(socket.AF_UNIX) as ear:
    ear.bind("agent")
    ear.listen()
    while True:
        caller, _ = ear.accept()
        with caller, caller.makefile("rw") as lines:
            verb, *words = json.loads(lines.readline())
            json.dump(globals()[verb](*words), lines)
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if not fleets.has_namespaces():
        missing("needs the right to make network namespaces", excused=True)
    settings = {f"RELAYQ_LEASE__{name}": value for name, value in SCALED.items()}
    settings["RELAYQ_SCHEDULER__MAX_RUNNING"] = str(MOST)
    settings["RELAYQ_WORKER__PRIORITY"] = "normal"
    with fleets.fleet(settings) as made:
        for name, section in HOSTS.items():
            host = made.add(name, f"worker: {{name: {name}, {section}}}\n")
            hidden = ["nvidia-smi"] if name == "mini" else ["nvidia-smi", "ffmpeg"]
            host.furnish(*hidden, **({"nvidia-smi": CARD} if name == "gpu-box" else {}))
            host.start_worker()
        client = made.add("client")
        client.start(sys.executable, "-c", AGENT)
        until(lambda: have_looked(client), within=40, what="all hosts to say what they have")
        yield made


@pytest.fixture
def client(fleet: Fleet) -> Host:
    return fleet.host("client")


def known(client: Host) -> dict[str, dict[str, Any]]:
    """Return what `relayq hosts` says of each host."""
    asked = client.start_relayq("hosts", "--json").finish(noted=False)
    return {host["name"]: host for host in json.loads(asked.out)["hosts"]}


def have_looked(client: Host) -> bool:
    hosts = known(client)
    return (
        hosts.keys() == ALL
        and "cuda" in hosts["gpu-box"]["capabilities"]
        and any(word.startswith("encoder:") for word in hosts["mini"]["capabilities"])
    )


def ask(client: Host, verb: str, *words: Any) -> Any:
    """Have the Python client on the client's host do something."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(60)
        line.connect(str(client.home / "agent"))
        with line.makefile("rw") as lines:
            lines.write(json.dumps([verb, *words]) + "\n")
            lines.flush()
            return json.loads(lines.read())


def submit(client: Host, cmd: str = "true", **asked: Any) -> str:
    [id] = ask(client, "submit", {"cmd": cmd, **asked})
    return id


def record(client: Host, id: str) -> dict[str, Any]:
    [found] = ask(client, "records", id)
    return found


def ended_on(client: Host, *ids: str) -> list[str]:
    """Wait for the end of jobs, and return the hosts that ran them."""
    hosts = ask(client, "wait", *ids)
    assert [state(client, id) for id in ids] == ["succeeded"] * len(ids)
    return hosts


def state(client: Host, id: str) -> str:
    return record(client, id)["state"]


def runs(client: Host, *ids: str) -> None:
    until(
        lambda: all(one["state"] == "running" for one in ask(client, "records", *ids)),
        within=20,
        what=f"{', '.join(ids)} to run",
    )


def why(client: Host, id: str) -> dict[str, tuple[str, str]]:
    """Return what each host says to a queued job."""
    answers = json.loads(client.relayq("why", "--json", id).out)["hosts"]
    return {one["host"]: (one["answer"], one["why"]) for one in answers}


@contextmanager
def holding(client: Host, count: int, **asked: Any) -> Iterator[list[str]]:
    """Keep so many slots busy for as long as a block lasts."""
    ids = ask(client, "submit", *[{"cmd": "sleep 300", **asked}] * count)
    try:
        runs(client, *ids)
        yield ids
    finally:
        ask(client, "cancel", *ids)
        ask(client, "wait", *ids)


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
        ("--needs whisper", {"gpu-box"}),
        ("--needs whisper:large,@heavy", {"gpu-box"}),
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


# Hosts that come, go, and are kept from work


def test_a_drained_host_takes_nothing_until_it_is_undrained(client: Host) -> None:
    with holding(client, 1, host="gpu-box"):
        drained = client.relayq("hosts", "drain", "gpu-box", "--reason", "new disk")
        try:
            id = submit(client, needs="cuda")
            assert ended_on(client, submit(client, on="@heavy")) == ["mini"]
            told = client.relayq("why", id).out
            status = client.relayq("status").out
        finally:
            client.relayq("hosts", "undrain", "gpu-box")
        ended_on(client, id)

    assert drained.out == "gpu-box  takes nothing new; what runs there goes on (1 job)\n"
    assert "gpu-box  not now   draining: new disk" in told
    assert "Options: relayq hosts undrain gpu-box . " in told
    assert "draining (new disk)" in status


def test_a_host_gets_another_name_and_is_forgotten(fleet: Fleet, client: Host) -> None:
    host = fleet.add("attic", "worker: {name: attic, labels: [roof]}\n")
    host.start_worker()
    until(lambda: "attic" in known(client), within=20, what="attic to register")
    online = client.relayq("hosts", "rename", "attic", "mini")
    host.end_worker()
    ids = [submit(client, host="attic"), submit(client, on="attic", needs="linux")]
    file = host.relayq_home / "config.yml"
    file.write_text(file.read_text().replace("name: attic", "name: loft"))
    host.start_worker()
    until(lambda: "loft" in known(client), within=20, what="loft to register")

    renamed = client.relayq("hosts", "rename", "attic", "loft")
    assert ended_on(client, *ids) == ["loft"] * 2

    assert "attic is online" in online.err
    assert renamed.out == "attic is loft now; 1 job moved\n"
    assert client.relayq("run", "--on", "attic", "echo here").out == "here\n"
    # By its old name it can be left out, too, also where no other host can.
    id = submit(client, on="@roof", excluded="attic", wait_for_host=True)
    assert client.relayq("wait", "--timeout", "3s", id).status == 75
    ask(client, "cancel", id)
    refused = client.relayq("hosts", "rm", "loft")
    host.end_worker()
    assert client.relayq("hosts", "rm", "loft").out == "loft  forgotten\n"

    assert refused.status == 125
    assert known(client).keys() == ALL


def test_a_host_off_the_network_gets_its_jobs_when_it_is_back(fleet: Fleet, client: Host) -> None:
    held = submit(client, "sleep 2", needs="@heavy", prefer="gpu-box", overflow=1)
    runs(client, held)
    fleet.host("gpu-box").set_link("down")
    try:
        waiting = submit(client, needs="cuda")
        until(lambda: not known(client)["gpu-box"]["online"], within=20, what="its silence")
        answer = why(client, waiting)["gpu-box"]
        # What it ran and another one can is that one's.
        assert ended_on(client, held) == ["mini"]
        assert state(client, waiting) == "queued"
        assert client.relayq("run", "--needs", "ffmpeg", "uname -n").out == "mini\n"
    finally:
        fleet.host("gpu-box").set_link("up")

    assert ended_on(client, waiting) == ["gpu-box"]
    assert answer[0] == "offline"


# What reaches a host by other ways


def test_the_packet_that_wakes_a_host_arrives(fleet: Fleet, client: Host) -> None:
    script = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
    ear.bind(("", 9)); ear.settimeout(20)
    print("listening", flush=True)
    packet, sender = ear.recvfrom(2000)
    print(packet.hex(), sender[0])
"""
    ear = fleet.host("mini").start(sys.executable, "-c", script)
    until(lambda: ear.out, within=10, what="somebody to listen")

    asked = client.relayq("hosts", "wake", "mini")
    packet, sender = ear.finish().out.split()[1:]

    assert asked.out == "mini  waking, by pi4\n"
    assert packet == "ff" * 6 + "0200000000aa" * 16
    assert sender == fleet.host("pi4").address
    assert "nobody knows how to wake pi4" in client.relayq("hosts", "wake", "pi4").err


def test_ssh_leads_to_the_address_that_a_host_names(client: Host) -> None:
    planned = client.relayq("ssh", "--dry-run", "mac", "ls", "a b")
    unnamed = client.relayq("ssh", "--dry-run", "gpu-box")

    assert planned.out == "ssh -- root@mini ls 'a b'\n"
    assert unnamed.out == f"ssh -- {client.fleet.host('gpu-box').address}\n"


def test_ssh_opens_a_real_session(client: Host, fleet: Fleet) -> None:
    with sshd(fleet.host("pi4")) as key:
        configuration = client.home / "ssh_config"
        configuration.write_text(
            f"Host *\n User root\n IdentityFile {key}\n StrictHostKeyChecking no\n"
            " UserKnownHostsFile /dev/null\n BatchMode yes\n LogLevel ERROR\n"
        )
        wrapper = client.home / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {configuration} "$@"\n')
        wrapper.chmod(0o755)
        before, client.path = client.path, f"{wrapper.parent}:{client.path}"
        try:
            done = client.relayq("ssh", "rpi", "uname -n; exit 7")
        finally:
            client.path = before

    assert (done.out, done.status) == ("pi4\n", 7)


@contextmanager
def sshd(host: Host) -> Iterator[str]:
    """Run a real ssh server on a host; yields the file of the key that opens it."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if server is None:
        missing("needs sshd (Debian: openssh-server)", excused=True)
    for name in ("host_key", "user_key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host.home / name)]
        subprocess.run(argv, check=True)
    (host.home / "sshd_config").write_text(
        f"HostKey {host.home}/host_key\nAuthorizedKeysFile {host.home}/user_key.pub\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n"
    )
    # It wants a directory that only a running system has.
    line = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$0" -D -e -f "$PWD/sshd_config"'
    running: Command = host.start("unshare", "--mount", "sh", "-c", line, server)
    until(lambda: "Server listening" in running.err, within=10, what=lambda: running.err or "sshd")
    try:
        yield str(host.home / "user_key")
    finally:
        running.kill()
        running.finish()
