"""A host where an agent isn't logged in takes no job from one where it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relayq import embedded
from relayq.errors import Unplaceable
from relayq.model.jobs import JobState
from tests.probing import remember
from tests.system.conftest import ROOT, start_fleet
from tests.waiting import until

pytestmark = pytest.mark.system

FAKE = Path(__file__).with_name("fake_agent.py")
SCRIPT = ["init", "read", ["needs key", "the-good-key"], "result"]


def write_key(home, key):
    file = home / "agents.env"
    file.touch(mode=0o600)
    file.write_text(f"ANTHROPIC_API_KEY={key}\n")


@pytest.fixture
def fleet(home, tmp_path, monkeypatch):
    """A host called here, whose key is refused."""
    (tmp_path / "bin").mkdir()
    shutil.copy(FAKE, tmp_path / "bin" / "claude")
    write_key(home, "the-bad-key")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for started in start_fleet(home, monkeypatch):
        await_claude(started, {"here"})
        yield started
    embedded.stop_broker(started.config)


@pytest.fixture
def there(fleet, tmp_path):
    """Another worker, whose key is good."""
    home = tmp_path / "there"
    home.mkdir(mode=0o700)
    write_key(home, "the-good-key")
    remember(home)
    shutil.copy(fleet.home / "fleet.key", home / "fleet.key")
    own = {"RELAYQ_HOME": str(home), "RELAYQ_WORKER__NAME": "there"}
    url = {"RELAYQ_BROKER__URL": fleet.broker.url, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "there.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "relayq.worker"],
            cwd="/",
            env={**os.environ, **url, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    await_claude(fleet, {"here", "there"})
    yield home
    worker.terminate()
    worker.wait(20)


def await_claude(fleet, names):
    until(lambda: capable(fleet) == names, within=30, what=f"Claude to be found on {names}")


def hosts(fleet):
    found = fleet.relay.session().store.hosts.list(online_within=60)
    return {host.name: host for host in found}


def capable(fleet):
    return {name for name, host in hosts(fleet).items() if "agent:claude" in host.capabilities}


def refused(fleet, name="here"):
    return hosts(fleet)[name].facts["unfit"]


def ask(fleet, **asked):
    env = {"FAKE": json.dumps(SCRIPT)}
    return fleet.job.submit("run_claude", prompt="please", env=env, **asked)


def until_state(fleet, job, state):
    def record():
        found = job.record
        return found if found.state == JobState(state) else None

    return until(record, within=30, what=lambda: f"{job.record}\n{fleet.log()[-2000:]}")


def test_a_job_goes_on_where_its_agent_is_logged_in(fleet, there):
    # The first choice of both is the host that can't.
    job = ask(fleet, prefer="here")

    record = until_state(fleet, job, "succeeded")

    assert (record.host, record.failures) == ("there", 0)
    assert "Not logged in" in refused(fleet)["claude/default"]
    assert refused(fleet, "there") == {}


def test_only_when_no_host_is_left_a_person_is_asked(fleet):
    job = ask(fleet)

    record = until_state(fleet, job, "needs_human")

    assert "isn't logged in on here" in record.question
    with pytest.raises(Unplaceable, match="claude/default isn't logged in"):
        ask(fleet)
    waiting = ask(fleet, wait_for_host=True)
    write_key(fleet.home, "the-good-key")
    fleet.job.answer(job.id, choice=1)
    # The session is this host's, so it is tried there, and lets the others follow.
    until_state(fleet, job, "succeeded")
    until_state(fleet, waiting, "succeeded")
    assert refused(fleet) == {}


def test_a_host_that_is_named_is_tried_in_any_case(fleet):
    until_state(fleet, ask(fleet), "needs_human")
    write_key(fleet.home, "the-good-key")

    until_state(fleet, ask(fleet, on="here"), "succeeded")

    until(lambda: refused(fleet) == {}, within=10, what="the login to be known")


def test_a_refused_login_is_remembered_over_a_restart(fleet):
    until_state(fleet, ask(fleet), "needs_human")

    fleet.end_worker()
    fleet.start_worker()

    assert "claude/default" in refused(fleet)
