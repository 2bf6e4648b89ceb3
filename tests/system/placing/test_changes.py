"""Hosts that come, go, and are kept from work; and what reaches them by other ways."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import missing
from tests.system.fleet import Command, Fleet, Host
from tests.system.placing.three import ALL, ask, ended_on, holding, known, runs, state, submit, why
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.media]


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
        missing("needs sshd (Debian: openssh-server)")
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
