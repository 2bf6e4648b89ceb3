"""A job that submits jobs, by its worker: what it may, and what not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from relayq import config
from relayq.host import tokens
from tests.conftest import missing
from tests.system import fleet as fleets
from tests.system.fleet import RELAYQ, ROOT, Fleet, Host
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.root]

#: relayq, in a job's shell: nothing of the worker's environment is there.
INSIDE = f"env PYTHONPATH={ROOT} {sys.executable} -m relayq"


@pytest.fixture(scope="module")
def built() -> Iterator[Fleet]:
    if not fleets.has_namespaces():
        missing("needs the right to make network namespaces", excused=True)
    with fleets.fleet() as fleet:
        for name in ("mini", "pi4"):
            fleet.add(name, "worker: {max_concurrent: 4}\n").start_worker()
        fleet.add("solo", "worker: {max_concurrent: 1}\n").start_worker()
        client = fleet.add("client")
        names = {"mini", "pi4", "solo"}
        until(lambda: online(client) == names, within=30, what="all hosts to be online")
        yield fleet


def online(client: Host) -> set[str]:
    asked = client.start_relayq("status", "--json").finish(noted=False)
    return {host["name"] for host in json.loads(asked.out)["hosts"] if host["online"]}


@pytest.fixture
def client(built: Fleet) -> Host:
    return built.host("client")


def record(client: Host, id: str) -> dict:
    return json.loads(client.start_relayq("show", id, "--json").finish(noted=False).out)


def test_a_job_on_one_host_runs_another_on_the_other_and_has_its_output(client):
    script = f"{INSIDE} run -q --on pi4 hostname; {INSIDE} ps -q; env"

    done = client.relayq("run", "--name", "root", "--on", "mini", script)

    assert done.status == 0, done
    output = done.out.splitlines()
    child = record(client, output[1])
    root = record(client, "root")
    assert output[0] == "pi4"
    assert child["spec"]["ancestors"] == [root["id"]]
    assert child["spec"]["submitter"] == f"{root['id']}@mini"
    password = (client.relayq_home / "password").read_text().strip()
    assert client.fleet.key not in done.out
    assert password not in done.out
    assert client.fleet.broker.address not in done.out
    assert "Parent" in client.relayq("show", output[1]).out


def test_a_job_that_waits_for_one_on_its_own_host_lends_it_the_only_slot(client):
    script = f"{INSIDE} run -q --on solo 'echo below; {INSIDE} run -q --on solo echo deeper'"

    done = client.relayq("run", "--on", "solo", "--timeout", "60s", script)

    assert (done.status, done.out) == (0, "below\ndeeper\n"), done


def test_python_inside_a_job_uses_the_same_way(client):
    program = (
        "from relayq import job; one = job.run_on('pi4', 'hostname; echo to stderr >&2'); "
        "print(one.get(), one.stderr.strip(), one.host)"
    )

    done = client.relayq(
        "run", "--on", "mini", "-e", f"PYTHONPATH={ROOT}", sys.executable, "-c", program
    )

    assert (done.status, done.out) == (0, "pi4 to stderr pi4\n"), done


def test_submit_wait_logs_result_show_and_cancel_work_inside(client):
    script = f"""
set -e
id=$({INSIDE} submit -q --on pi4 'echo hello; exit 3')
{INSIDE} wait -q $id || echo code $?
{INSIDE} logs $id
{INSIDE} show $id --json | grep -c '"failed"'
long=$({INSIDE} submit -q --on pi4 'sleep 600')
{INSIDE} cancel $long
{INSIDE} wait -q $long || echo code $?
"""
    done = client.relayq("run", "-q", "--on", "mini", script)

    output = done.out.splitlines()
    assert (done.status, output[:3]) == (0, ["code 3", "hello", "1"]), done
    assert "cancel" in output[3]
    assert output[-1] == "code 130"


def test_a_job_neither_sees_nor_cancels_what_isnt_its_own(client):
    other = client.relayq("submit", "-q", "--on", "pi4", "sleep 600").out.strip()
    script = (
        f"for verb in show cancel logs wait; do {INSIDE} $verb {other}; echo $?; done;"
        f"{INSIDE} status; echo $?"
    )

    done = client.relayq("run", "-q", "--on", "mini", script)

    assert done.out.split() == ["125"] * 5, done
    assert done.err.count(f"no such job: {other} (a job knows those that it submitted)") == 4
    assert "that can't be done inside a job" in done.err
    assert record(client, other)["state"] in ("queued", "running")
    client.relayq("cancel", other)


def test_depth_and_counts_are_refused_with_the_reason(client):
    deep = f"{INSIDE} run -q --on pi4 '{INSIDE} run -q --on mini hostname'"
    many = f"for i in 1 2 3; do {INSIDE} submit -q --on pi4 'sleep 600'; done"

    too_deep = client.relayq("run", "-q", "--on", "mini", "--grant", "depth=1", deep)
    too_many = client.relayq("run", "-q", "--on", "mini", "--grant", "at_once=2", many)
    none = client.relayq("run", "-q", "--on", "mini", "--grant", "none", many)
    elsewhere = client.relayq("run", "-q", "--on", "mini", "--grant", "hosts=mini", many)

    assert too_deep.status == 125
    assert "its grant's depth is 1" in too_deep.err
    assert too_many.status == 125
    assert len(too_many.out.split()) == 2
    assert "that many may be at a time" in too_many.err
    assert "may submit nothing: it was granted none" in none.err
    assert "may submit to mini only, not pi4" in elsewhere.err
    client.relayq("cancel", *too_many.out.split())


def test_cancelling_a_job_ends_what_it_submitted(client):
    script = f"{INSIDE} run -q --on pi4 'sleep 600'"
    root = client.relayq("submit", "-q", "--on", "mini", script).out.strip()

    def child() -> str | None:
        listed = json.loads(client.start_relayq("ps", "--json").finish(noted=False).out)["jobs"]
        mine = [one for one in listed if one["spec"]["ancestors"] == [root]]
        return mine[0]["id"] if mine and mine[0]["state"] == "running" else None

    until(lambda: child() is not None, within=30, what="the child to run")
    id = child()
    client.relayq("cancel", root)

    until(lambda: record(client, id)["state"] == "cancelled", within=20, what="the child's end")
    assert record(client, root)["state"] == "cancelled"


def test_a_foreign_token_and_that_of_an_ended_job_are_refused(client, built):
    mini = built.host("mini")
    done = client.relayq("run", "--on", "mini", "echo $RELAYQ_SOCKET; echo $RELAYQ_TOKEN")
    socket, token = done.out.split()

    def ask(token: str) -> str:
        variables = (f"RELAYQ_SOCKET={socket}", f"RELAYQ_TOKEN={token}")
        return mini.start("env", *variables, *RELAYQ, "run", "hostname").finish().err

    assert os.stat(socket).st_mode & 0o777 == 0o600
    assert "token isn't good any more" in ask(token)
    assert "token isn't good any more" in ask("0" * 32)
    assert "token isn't good any more" in ask("ü")


def test_a_worker_that_is_killed_and_started_again_lets_its_job_go_on(client, built, tmp_path):
    mini = built.host("mini")
    go = tmp_path / "go"
    script = (
        f"{INSIDE} run -q --on pi4 'echo one'; touch {tmp_path}/first; "
        f"until [ -e {go} ]; do sleep 0.1; done; {INSIDE} run -q --on pi4 'echo two'"
    )
    root = client.relayq("submit", "-q", "--on", "mini", script).out.strip()
    until((tmp_path / "first").exists, within=30, what="its first child to end")

    mini.end_worker(fleets.signal.SIGKILL)
    go.touch()
    mini.start_worker()

    done = client.relayq("wait", "-q", root)
    assert done.status == 0, done
    assert client.relayq("result", root).out == "one\ntwo\n"
    assert record(client, root)["attempt"] == 1


def test_the_socket_of_a_home_with_a_long_path_is_elsewhere(tmp_path):
    home = tmp_path / ("x" * 120)

    assert len(tokens.address(home)) < 104
    assert tokens.address(config.load({"RELAYQ_HOME": "/short"}).home) == "/short/worker.sock"
