"""A real agent that has another job do something, and goes on with what came back."""

from __future__ import annotations

import shlex

import pytest

from relayq import families
from tests.agents.install import PROGRAMS

pytestmark = [pytest.mark.system, pytest.mark.agents]


@pytest.mark.parametrize("agent", PROGRAMS)
def test_what_an_agents_tool_submits_runs_and_its_output_comes_back_to_the_model(fleet, agent):
    path = fleet.environ.get("PYTHONPATH", "")
    relayq = shlex.join(["env", f"PYTHONPATH={path}", fleet.python, "-m", "relayq"])
    asked = f"{relayq} run -q --on here 'echo a child says $((6 * 7))'"
    fleet.api.play("runs a command", command=asked)
    job = fleet.ask(agent, permission="full")

    fleet.until_state(job, "succeeded")

    [child] = families.descendants(fleet.relay.session().store, job.record)
    assert child.state == "succeeded"
    assert "a child says 42" in fleet.api.asked[-1].turn.said
    assert fleet.relay.session().signer.key_id not in fleet.api.asked[-1].turn.said
