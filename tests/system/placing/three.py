"""Three machines that differ, and a Python client that stays."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.system.fleet import Host
from tests.waiting import until

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
    "capabilities: [sonar:large, -gcc]",
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
