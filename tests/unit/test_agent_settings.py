"""The sections `agents:` and `privacy:` of the configuration."""

from __future__ import annotations

import pytest

from relayq.agents import adapters
from relayq.config import Privacy, load, problems
from relayq.host.preparation import quotas_of
from relayq.model.accounts import Quota


def settings(home, text):
    (home / "config.yml").write_text(text)
    return load({"RELAYQ_HOME": str(home)})


def wrong(home, text):
    (home / "config.yml").write_text(text)
    return [one.message for one in problems({"RELAYQ_HOME": str(home)})]


def test_an_agents_entry_has_its_adapter_its_accounts_and_what_the_host_allows(home):
    found = settings(
        home,
        """
agents:
  default: codex
  resume_elsewhere_after: 1h
  claude:
    command: /opt/claude
    env: {API_TIMEOUT_MS: "120000"}
    mode: read-only
    stall: 30m
    allow_root_sandbox: yes
    accounts:
      work: {limit: 2, budget: 5.5, stagger: 0, env: {CLAUDE_CONFIG_DIR: /opt/work}}
""",
    )

    assert found.default_agent == "codex"
    assert found.resume_elsewhere_after == 3600
    claude = found.agents["claude"]
    assert (claude["mode"], claude["stall"], claude["allow_root_sandbox"]) == (
        "read_only",
        1800,
        True,
    )
    assert quotas_of(found.agents) == {"claude/work": Quota(2, 5.5, 0.0)}
    assert adapters.load(found.adapters)["claude"].command == "/opt/claude"
    assert found.mode_of("claude") == "read_only"


def test_without_a_word_a_job_may_edit_and_the_agent_is_claude(home):
    found = settings(home, "")

    assert (found.default_agent, found.mode_of("claude"), dict(found.agents)) == (
        "claude",
        "edit",
        {},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agents: {claude: {mode: yolo}}", "agents.claude.mode"),
        ("agents: {claude: {accounts: {x: {limits: 3}}}}", "agents.claude.accounts.x.limits"),
        ("agents: {claude: {accounts: {x: {limit: 0}}}}", "agents.claude.accounts.x.limit"),
        ("agents: {claude: {accounts: {'a b': {}}}}", "a b"),
        ("agents: {claude: {stall: soon}}", "agents.claude.stall"),
        ("agents: {claude: [1]}", "expected 'key: value'"),
        ("agents: {resume_elsewhere_after: soon}", "agents.resume_elsewhere_after"),
        ("privacy: {work: {agent: ollama}}", "privacy.work.agent"),
        ("privacy: {work: {}}", "needs agents or hosts"),
        ("privacy: {work: {hosts: ['a b']}}", "privacy.work.hosts"),
    ],
)
def test_what_cant_be_used_is_an_error_that_names_it(home, text, said):
    [message] = wrong(home, text)

    assert said in message
    assert "config.yml:1" in message


def test_every_wrong_entry_is_told_and_not_only_the_first(home):
    found = wrong(home, "agents: {claude: {mode: x}, codex: {stall: y}}\nprivacy: {a: {b: c}}")

    assert len(found) == 3


def test_private_labels_have_agents_and_hosts(home):
    found = settings(home, "privacy: {work: {agents: [ollama], hosts: [gpu-box, 'lab*']}}")

    assert found.privacy == {"work": Privacy(("ollama",), ("gpu-box", "lab*"))}
