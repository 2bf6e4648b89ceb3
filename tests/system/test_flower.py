"""Flower itself, started by `relayq flower`, beside a fleet with jobs."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import psutil
import pytest

from tests.system.flowering import Flowering
from tests.system.serving import free_port
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def flower(shared_fleet):
    one = Flowering(shared_fleet.home, shared_fleet.environ)
    yield one
    one.close()


def test_jobs_show_with_their_kind_and_state(shared_fleet, flower):
    job = shared_fleet.job
    good, bad = job.run("echo '<b>good</b>'"), job.run("exit 3")
    good.wait(), bad.wait()
    lonely = job.run("true", needs="cuda", wait_for_host=True)

    def states():
        tasks = flower.tasks()
        return [tasks.get(one.id, {}).get("state") for one in (good, bad, lonely)]

    until(lambda: states() == ["SUCCESS", "FAILURE", "PENDING"], what=lambda: str(states()))
    shown = flower.tasks()[good.id]
    assert (shown["name"], shown["worker"]) == ("relayq.run_command", "relayq@here")
    # A page of it shows a command as text.
    page = flower.ask(f"/task/{good.id}")[1].decode()
    assert "&lt;b&gt;good" in page
    assert "<b>good" not in page


def test_queues_show_with_what_waits_there_also_those_that_nobody_serves(shared_fleet, flower):
    shared_fleet.job.run("true", needs="rocm", wait_for_host=True)

    def queues():
        found = json.loads(flower.ask("/api/queues/length")[1])["active_queues"]
        return {one["name"]: (one["messages"], one["consumers"]) for one in found}

    until(lambda: queues().get("needs.rocm") == (1, 0), what=lambda: str(queues()))
    assert queues()["any"] == (0, 1)
    assert b"needs.rocm" in flower.ask("/broker")[1]


def test_a_host_shows_with_its_kinds_and_no_button(flower):
    until(lambda: b"relayq@here" in flower.ask("/workers")[1], what="the host to show")
    status, page = flower.ask("/worker/relayq@here")

    assert status == 200
    assert b"relayq.transcode" in page
    assert b"Shut Down" not in page
    assert flower.ask("/api/worker/shutdown/relayq@here", "POST")[0] == 403
    assert flower.ask("/api/task/async-apply/relayq.run_command", "POST")[0] == 403


@pytest.mark.parametrize("path", ["/", "/tasks", "/api/tasks", "/metrics", "/healthcheck", "/x"])
def test_no_page_is_for_who_has_no_password_or_calls_it_by_another_name(flower, path):
    assert flower.ask(path, login="")[0] == 401
    assert flower.ask(path, login="relayq:wrong")[0] == 401
    assert flower.ask(path, Host=f"evil.example:{flower.port}")[0] == 421


def test_it_is_on_this_machine_only_and_its_files_are_its_owners(flower):
    listed = subprocess.run(["ss", "-Hltn", f"sport = :{flower.port}"], capture_output=True)
    assert listed.stdout.split()[3] == f"127.0.0.1:{flower.port}".encode()
    folder = flower.home / "flower"
    for path in (folder, folder / "password"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    # No password stands where every user of the machine can read it.
    argv = psutil.Process(flower.process.pid).cmdline()
    assert (folder / "password").read_text().strip() not in " ".join(argv)


def test_it_only_reads(shared_fleet, flower):
    from relayq.embedded.users import users

    [user] = [one for one in users(shared_fleet.config) if one.name == "flower"]

    assert user.role == "flower"


def test_a_second_one_is_refused_and_the_first_goes_on(shared_fleet, flower):
    done = subprocess.run(
        [sys.executable, "-m", "relayq", "flower", "--port", str(free_port())],
        env=flower.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (125, "")
    assert "Flower runs here already" in done.stderr
    ran = shared_fleet.job.run("echo seen by the first")
    ran.wait()
    until(lambda: flower.tasks().get(ran.id, {}).get("state") == "SUCCESS", what="the job to show")


def test_it_remembers_over_its_restart(shared_fleet, flower):
    ran = shared_fleet.job.run("echo kept")
    ran.wait()
    until(lambda: flower.tasks().get(ran.id, {}).get("state") == "SUCCESS", what="the job to show")

    flower.close()
    shared_fleet.relay.session().store.jobs.forget([ran.id])
    flower.start()

    assert flower.tasks()[ran.id]["state"] == "SUCCESS"
