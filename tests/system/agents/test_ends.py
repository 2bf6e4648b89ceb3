"""However an agent's run ends, nothing of it is left and nothing is done twice."""

from __future__ import annotations

import signal

import pytest

from tests.agents.install import PROGRAMS
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.agents]
#: A tool's shell of its own, one below it, and one that has left both.
SHELLS = "setsid sleep 301 & sleep 302 & touch {path}; sleep 303"


def begun(fleet, agent, path, **asked):
    """Start a job whose tool is at work."""
    fleet.api.play("runs a command", command=SHELLS.format(path=path))
    job = fleet.ask(agent, permission="full", **asked)
    until(path.exists, within=30, what=lambda: fleet.told(job, "at work"))
    return job


def gone(fleet):
    """Wait until nothing is left of an agent."""
    left = fleet.agents_processes
    until(lambda: not left(), within=20, what=lambda: f"{left()} to end")


@pytest.mark.parametrize("agent", PROGRAMS)
def test_a_cancel_leaves_none_of_its_tools_shells(fleet, agent):
    job = begun(fleet, agent, fleet.place.work / f"cancelled-{agent}")
    assert fleet.agents_processes()

    job.cancel()
    fleet.until_state(job, "cancelled")

    gone(fleet)


def test_an_endless_loop_ends_at_the_time_limit(fleet):
    fleet.api.play("loops", command="echo again")
    job = fleet.ask("codex", timeout=6)

    record = fleet.until_state(job, "failed")

    assert record.reason == "timeout"
    assert len(fleet.api.asked) > 2
    gone(fleet)


@pytest.mark.parametrize("agent", PROGRAMS)
def test_a_killed_worker_costs_a_session_nothing(fleet, agent):
    path = fleet.place.work / f"go-on-{agent}"
    command = f"while [ ! -e {path} ]; do sleep 0.1; done; echo went on"
    fleet.api.play("runs a command", command=command)
    job = fleet.ask(agent, permission="full")
    until(lambda: fleet.api.asked and fleet.agents_processes(), within=30, what="the tool to run")

    fleet.end_worker(signal.SIGKILL)
    fleet.start_worker()
    path.touch()
    fleet.until_state(job, "succeeded")

    assert fleet.answer(job)["text"] == "the command has run"
    assert job.record.attempt == 1
    assert len(fleet.api.asked) == 2


def test_a_killed_agent_resumes_its_session(fleet):
    path = fleet.place.work / "killed"
    job = begun(fleet, "claude", path)
    fleet.api.play("text")

    for process in fleet.agents_processes():
        if process.name() == "claude":
            process.kill()
    fleet.until_state(job, "succeeded")

    answer = fleet.answer(job)
    last = fleet.api.asked[-1].turn.said
    assert answer["text"] == "the answer is 42"
    assert "please do it" in last
    assert "Continue where you left off" in last
    gone(fleet)
