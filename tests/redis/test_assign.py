"""Work in words becomes a proposal, and a job that keeps to it."""

from __future__ import annotations

import pytest

from relayq.assignments import assign, queue
from relayq.client import Relay
from relayq.errors import RelayqError
from relayq.session import Session

CONFIG = """
privacy:
  work: {agents: [ollama], hosts: [box]}
"""
CAN = {
    "mini": ["kind:run_agent", "agent:claude", "agent:codex", "ffmpeg"],
    "box": ["kind:run_agent", "agent:claude", "agent:ollama"],
}


@pytest.fixture
def job(fleet, store, home):
    """A client that knows two hosts with agents."""
    (home / "config.yml").write_text(CONFIG)
    for name, capabilities in CAN.items():
        store.hosts.register(
            fleet.host(name).who,
            lease=60.0,
            key_id=fleet.signer.key_id,
            slots=2,
            version="0.1.0",
            facts={"os": "linux", "capabilities": capabilities},
        )
    relay = Relay(home=home)
    relay._session = Session(store, fleet.signer, print)
    return relay.job


class Router:
    """An agent that says what it was told to say, and remembers what it was asked."""

    def __init__(self, **said: str) -> None:
        self.said = said or None
        self.asked: list[str] = []

    def __call__(self, prompt, schema):
        self.asked.append(prompt)
        assert set(schema["properties"]["host"]["enum"]) == set(CAN)
        return self.said


def test_what_is_queued_is_what_was_proposed(job):
    found = assign(job, "transcode the film")

    spec = queue(job, found, name="film").record.spec

    assert (spec.host, spec.accounts, spec.name) == ("mini", ("claude/default",), "film")
    assert spec.payload["prompt"] == spec.note == "transcode the film"


def test_the_router_is_asked_where_the_rules_know_nothing(job):
    router = Router(host="box", agent="ollama", permission="edit", reason="it is small")

    found = assign(job, "make it faster", router=router)

    assert (found.by, found.proposal.host, found.proposal.agent) == ("agent", "box", "ollama")
    assert found.proposal.reasons == ("it is small",)
    assert "- mini: online idle" in router.asked[0]


def test_the_router_isnt_asked_what_the_rules_know(job):
    router = Router(host="box", agent="ollama", permission="edit", reason="")

    assert assign(job, "transcode the film", router=router).proposal.host == "mini"
    assert assign(job, "make it faster", host="mini", router=router).proposal.host == "mini"
    assert not router.asked


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"host": "vax", "agent": "claude", "permission": "edit"},
        {"host": "mini", "agent": "ollama", "permission": "edit"},
        {"host": "mini", "agent": "claude", "permission": "full"},
    ],
)
def test_a_router_cant_choose_what_isnt_there_nor_full_permission(job, said):
    found = assign(job, "make it faster", router=Router(**said))

    assert found.proposal.host in CAN
    assert found.proposal.agent == "claude"
    assert found.proposal.permission in ("", "read_only")


def test_what_is_given_stays(job):
    router = Router(host="mini", agent="claude", permission="edit", reason="")

    found = assign(job, "make it faster", agent="codex", router=router)

    assert (found.proposal.host, found.proposal.agent) == ("mini", "codex")


def test_a_private_description_goes_to_private_agents_and_hosts(job):
    found = assign(job, "make it faster", private="work")

    spec = queue(job, found, private="work").record.spec

    assert (spec.host, spec.accounts) == ("box", ("ollama/default",))
    assert "private:work" in spec.labels


def test_what_is_blocked_isnt_queued_unless_it_is_forced(job):
    found = assign(job, "transcode the film", host="box")

    with pytest.raises(RelayqError, match="box lacks ffmpeg; mini has it"):
        queue(job, found)
    assert queue(job, found, force=True).record.spec.host == "box"


def test_an_unknown_type_or_label_is_an_error(job):
    with pytest.raises(RelayqError, match="a type is one of agent, command"):
        assign(job, "x", sort="spell")
    with pytest.raises(RelayqError, match="no such private label"):
        assign(job, "x", private="home")
