"""An agent that runs in this process, without a queue."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from relayq import config
from relayq.agents import policy
from relayq.cli.agentlocal import run_here

pytestmark = pytest.mark.system
FAKE = Path(__file__).with_name("fake_agent.py")


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Return a function that has the nasty agent act by a script, and the waits that it told."""
    home = tmp_path / "relayq"
    home.mkdir(mode=0o700)
    limits = "max_throttle_wait: 1, grace: 1"
    (home / "config.yml").write_text(f"agents: {{claude: {{command: {FAKE}, {limits}}}}}")
    monkeypatch.setenv("RELAYQ_HOME", str(home))
    patience = policy.PATIENCE
    soon = {name: replace(one, first_delay=0.1) for name, one in patience.items()}
    monkeypatch.setattr(policy, "PATIENCE", soon)

    def asked(script, patience=soon, **options):
        monkeypatch.setattr(policy, "PATIENCE", patience)
        waits = []
        env = {"FAKE": json.dumps(script), "NOTES": str(tmp_path / "notes")}
        answer, code = run_here(
            config.load(),
            {"agent": "claude", "prompt": "please", "env": env},
            on_wait=lambda answer, wait: waits.append((str(answer.error_class), wait)),
            **options,
        )
        runs = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
        return answer, code, waits, runs

    asked.real = patience
    return asked


LIMITED = {"first": ["init", "read", ["retry", 30], ["sleep", 60]], "again": ["read", "result"]}


def test_a_short_rate_limit_is_waited_for_and_the_session_goes_on(ask):
    answer, code, waits, runs = ask(LIMITED)

    assert (code, answer.text) == (0, "done")
    assert [error for error, _ in waits] == ["rate_limited"]
    assert runs[0]["session"] == runs[1]["session"]


def test_a_long_one_is_for_who_sits_there_to_wait_for(ask):
    late = {name: replace(one, first_delay=3600.0) for name, one in ask.real.items()}

    answer, code, waits, _ = ask(LIMITED, patience=late)

    assert (code, str(answer.error_class), waits) == (75, "rate_limited", [])


def test_what_does_not_pass_is_not_tried_again(ask):
    answer, code, waits, _ = ask(["init", "read", ["error", "Not logged in"], ["exit", 1]])

    assert (code, str(answer.error_class), waits) == (80, "auth", [])
