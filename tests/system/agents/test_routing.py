"""Where the rules know nothing, a real agent chooses the host."""

from __future__ import annotations

import json
import subprocess

import pytest

from relayq.store.leases import Registration
from tests.system.agents.place import ROOT

pytestmark = [pytest.mark.system, pytest.mark.agents]


@pytest.fixture
def there(fleet):
    """Another host with Claude, of which there is only what it said of itself."""
    store = fleet.relay.session().store
    who = Registration("there", "another-install", "b", session="s")
    words = ["agent:claude", "kind:run_agent"]
    facts = {"capabilities": words, "agents": {"claude": {"version": "2.1", "logged_in": True}}}
    signer = fleet.relay.session().signer
    said = store.hosts.register(
        who, lease=60.0, key_id=signer.key_id, slots=1, version="1", facts=facts
    )
    assert said[0] == "ok"
    yield "there"
    subprocess.run(assigned(fleet, "hosts", "rm", "there", "--force"), env=fleet.environ, cwd="/")


def assigned(fleet, *words):
    return [fleet.python, "-c", "import sys; from relayq.cli import main; sys.exit(main())", *words]


@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_an_agent_is_asked_and_what_it_says_is_the_proposal(fleet, there, agent):
    chosen = {"host": there, "agent": "claude", "permission": "read_only", "reason": "it is idle"}
    fleet.api.play("structured", value=chosen)
    argv = assigned(fleet, "assign", "--dry-run", "--json", "--router", agent, "make it faster")

    done = subprocess.run(
        argv,
        env={**fleet.environ, "PYTHONPATH": fleet.environ.get("PYTHONPATH", str(ROOT))},
        cwd=fleet.place.work,
        capture_output=True,
        text=True,
        timeout=60,
        **fleet.as_user,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["by"], told["host"], told["agent"]) == ("agent", there, "claude")
    assert told["reasons"] == ["it is idle"]
    assert "make it faster" in fleet.api.asked[0].turn.said
