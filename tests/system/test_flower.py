"""Flower itself, started by `relayq flower`, beside a fleet with jobs."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import signal
import stat
import subprocess
import sys

import psutil
import pytest

from tests.conftest import missing
from tests.system.conftest import ROOT
from tests.system.serving import free_port
from tests.waiting import until

pytestmark = pytest.mark.system


class Flowering:
    """A process of `relayq flower`."""

    def __init__(self, fleet) -> None:
        self.home = fleet.home
        self.port = free_port()
        self.environ = {**fleet.environ, "RELAYQ_HOME": str(fleet.home)}
        self.start()

    def start(self) -> None:
        log = self.home / "test-flower.log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relayq", "flower", "--port", str(self.port)],
                env={**self.environ, "PYTHONPATH": str(ROOT)},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        until(self.is_up, within=30, what=log.read_text)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)

    def is_up(self) -> bool:
        try:
            return self.ask("/healthcheck")[0] == 200
        except OSError:
            return False

    def ask(
        self, path: str, method: str = "GET", *, login: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        password = self.home / "flower" / "password"
        if login is None and password.exists():
            login = f"relayq:{password.read_text().strip()}"
        if login:
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def tasks(self) -> dict[str, dict[str, object]]:
        return json.loads(self.ask("/api/tasks")[1])


@pytest.fixture(scope="module")
def flower(shared_fleet):
    if importlib.util.find_spec("flower") is None:
        missing("needs Flower (pip: the extra flower)")
    one = Flowering(shared_fleet)
    yield one
    one.end()


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


def test_it_remembers_over_its_restart(shared_fleet, flower):
    ran = shared_fleet.job.run("echo kept")
    ran.wait()
    until(lambda: flower.tasks().get(ran.id, {}).get("state") == "SUCCESS", what="the job to show")

    flower.end()
    shared_fleet.relay.session().store.jobs.forget([ran.id])
    flower.start()

    assert flower.tasks()[ran.id]["state"] == "SUCCESS"
