"""Jobs of agents as a program makes them: accounts, sessions, privacy, answers."""

from __future__ import annotations

import pytest

from relayq.agents.answers import Answer, Denial, Status
from relayq.agents.policy import decide
from relayq.client import Relay
from relayq.dispatch import TEMPLATE
from relayq.errors import Conflict, NeedsHuman, NoSuchSession, RelayqError
from relayq.model.jobs import JobState, Outcome
from relayq.model.sessions import Session as AgentSession
from relayq.session import Session
from relayq.store.leases import Further
from tests.redis.agents import AgentHost

CONFIG = """
agents:
  codex: {mode: read_only}
privacy:
  work: {agents: [claude], hosts: [pi4, "lab*"]}
  talk: {agents: [claude]}
"""
ONE = AgentSession("5c1e2f6e-1", "claude", "claude/default", "pi4", "/home/moth/site", "/home/moth")


@pytest.fixture
def host(fleet):
    return AgentHost(fleet, agents=("claude", "codex"))


@pytest.fixture
def job(fleet, store, host, home):
    """What a program calls, on the test's own store with one host that has agents."""
    (home / "config.yml").write_text(CONFIG)
    relay = Relay(home=home)
    relay._session = Session(store, fleet.signer, print)
    store.hosts.register(
        host.who,
        lease=60.0,
        key_id=fleet.signer.key_id,
        slots=2,
        version="0.1.0",
        facts={"os": "linux", "capabilities": ["kind:run_agent", "agent:claude", "agent:codex"]},
    )
    return relay.job


def asked(job, *words, **options):
    return job.agent(*words, wait_for_host=True, **options).record.spec


def ended(fleet, host, result, state=JobState.SUCCEEDED, *, further=None, **answer):
    """End a job's attempt as its worker does, with an agent's answer."""
    claim = host.ask()
    assert claim.token.id == result.id
    said = Answer(agent="claude", status=Status.OK, **answer)
    value = said.as_dict()
    if further is not None:
        value |= {"question": further.question, "choices": list(further.choices)}
        labels = tuple(one["label"] for one in further.choices)
        further = Further(question=further.question, choices=labels)
    token = claim.token
    outcome = Outcome(token.id, token.attempt, token.uid, host.name, state, "exit", result=value)
    fleet.store.leases.finish(
        token,
        state,
        reason="exit",
        outcome=fleet.signer.sign_outcome(outcome),
        template=TEMPLATE,
        further=further or Further(),
    )


def denied():
    """Return the question that a denied tool leads to."""
    answer = Answer(
        agent="claude",
        status=Status.NEEDS_HUMAN,
        error_class="needs_review",
        denials=(Denial("Bash", "git push", "Bash(git push)"),),
    )
    decision = decide(answer, failures=0, fallbacks=False, jitter=0.0, now=0.0)
    return Further(
        question=decision.question, choices=tuple(one.as_dict() for one in decision.choices)
    )


# What is submitted


def test_an_agents_job_names_its_accounts_and_its_permission(job):
    spec = asked(job, "claude", "do it", account="work", fallbacks=["codex"], name="x")

    assert spec.accounts == ("claude/work", "codex/default")
    assert spec.payload["permission"] == "edit"
    assert (spec.kind, spec.name) == ("run_agent", "x")


def test_the_configured_mode_is_what_a_job_gets_that_asks_for_none(job):
    assert asked(job, "codex", "do it").payload["permission"] == "read_only"
    assert asked(job, "codex", "do it", permission="full").payload["permission"] == "full"


def test_claude_has_a_word_of_its_own(job):
    assert job.claude("do it", wait_for_host=True).record.spec.accounts == ("claude/default",)


def test_a_session_goes_on_where_it_lives(job, store):
    store.sessions.note(ONE)

    spec = asked(job, "claude", "more", session="5c1e")

    assert spec.host == "pi4"
    assert (spec.payload["session"], spec.payload["cwd"]) == (ONE.id, ONE.cwd)


@pytest.mark.parametrize("cwd", [None, "/home/moth/site", "~/site"])
def test_the_last_session_is_resolved_to_its_id(job, store, cwd):
    store.sessions.note(ONE)

    spec = asked(job, "claude", "more", continue_=True, cwd=cwd)

    assert (spec.host, spec.payload["session"]) == ("pi4", ONE.id)
    assert "continue_" not in spec.payload


def test_a_session_that_isnt_there_or_anothers_is_a_clear_error(job, store):
    store.sessions.note(ONE)

    with pytest.raises(NoSuchSession, match="no such session: 9999"):
        job.agent("claude", "more", session="9999")
    with pytest.raises(RelayqError, match="is claude's"):
        job.agent("codex", "more", session="5c1e")
    with pytest.raises(Conflict, match="lives on pi4"):
        job.agent("claude", "more", session="5c1e", host="mini")
    with pytest.raises(NoSuchSession, match="claude has had no session in /elsewhere"):
        job.agent("claude", "more", continue_=True, cwd="/elsewhere")
    with pytest.raises(RelayqError, match="not both"):
        job.agent("claude", "more", continue_=True, session="5c1e")


def test_a_session_that_only_its_host_knows_can_be_named_with_the_host(job):
    spec = asked(job, "claude", "more", session="made-by-hand", host="pi4")

    assert (spec.host, spec.payload["session"]) == ("pi4", "made-by-hand")


# Privacy


def test_a_private_job_is_for_its_agents_and_hosts_only(job):
    spec = asked(job, "claude", "do it", private="work")

    assert spec.on == ("lab*", "pi4")
    assert "private:work" in spec.labels
    assert asked(job, "claude", "x", private="work", host="pi4").host == "pi4"
    assert asked(job, "claude", "x", private="talk").on == ()
    assert job.run("true", private="work", wait_for_host=True).record.spec.on == ("lab*", "pi4")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"private": "work", "host": "mini"}, "not for mini"),
        ({"private": "work", "on": "pi4,mini"}, "not for mini"),
        ({"private": "work", "on": "@any"}, "not for @any"),
        ({"private": "work", "fallbacks": ["codex"]}, "not for codex"),
        ({"private": "home"}, "no such private label: 'home'; there is talk, work"),
    ],
)
def test_what_would_leave_the_private_circle_is_refused(job, options, said):
    with pytest.raises(RelayqError, match=said):
        job.agent("claude", "do it", **options)


def test_a_label_without_hosts_cant_keep_a_command(job):
    with pytest.raises(RelayqError, match="names no hosts"):
        job.run("true", private="talk")


def test_a_private_job_cant_be_moved_elsewhere(job):
    result = job.agent("claude", "do it", private="work")

    with pytest.raises(Conflict, match="is private"):
        result.move("any")
    result.move(priority="high")


# What comes back


def test_get_returns_the_answers_text_and_agent_the_rest(fleet, host, job):
    result = job.agent("claude", "do it")
    ended(fleet, host, result, text="42", session_id="s1", turns=3)

    assert result.get() == "42"
    assert (result.agent.session_id, result.agent.turns) == ("s1", 3)


def test_get_returns_the_structured_value_if_one_was_asked_for(fleet, host, job):
    result = job.agent("claude", "do it", schema={"type": "object"})
    ended(fleet, host, result, text="as JSON", structured={"answer": 42})

    assert result.get() == {"answer": 42}


def test_a_command_has_no_agent(job):
    assert job.run("true").agent is None


# Answers


def parked(fleet, host, job):
    result = job.agent("claude", "do it")
    ended(fleet, host, result, JobState.NEEDS_HUMAN, further=denied(), session_id="s1")
    return result


def reply_of(fleet, host):
    """Return the reply that the next claim brings, checked as the worker does."""
    claim = host.ask()
    return fleet.signer.check_answer(
        claim.answer, id=claim.token.id, attempt=claim.token.attempt, outcome=claim.outcome
    )


def test_a_parked_job_says_its_question(fleet, host, job):
    result = parked(fleet, host, job)

    with pytest.raises(NeedsHuman, match="git push") as raised:
        result.get()
    assert "allow it?" in raised.value.question


def test_a_choice_carries_its_tools(fleet, host, job):
    assert parked(fleet, host, job).answer(choice=1) == "queued"

    reply = reply_of(fleet, host)

    assert reply.allow == ("Bash(git push)",)
    assert "You may use Bash(git push) now" in reply.text


def test_a_text_and_further_tools_go_to_the_agent_as_they_are(fleet, host, job):
    parked(fleet, host, job).answer("use the other branch", allow=["Edit"])

    reply = reply_of(fleet, host)

    assert (reply.text, reply.allow) == ("use the other branch", ("Edit",))


def test_a_choices_own_words_are_that_choice(fleet, host, job):
    parked(fleet, host, job).answer("Go on without")

    assert "without the tools" in reply_of(fleet, host).text


@pytest.mark.parametrize(("choice", "state"), [(3, "succeeded"), (4, "failed")])
def test_a_choice_that_is_a_verdict_ends_the_job(fleet, host, job, choice, state):
    result = parked(fleet, host, job)

    result.answer(choice=choice)

    assert result.state == state


def test_what_cant_be_an_answer_is_an_error(fleet, host, job):
    result = parked(fleet, host, job)

    with pytest.raises(RelayqError, match="has 4 choices, and no number 9"):
        result.answer(choice=9)
    with pytest.raises(RelayqError, match="no choice 'perhaps'"):
        result.answer(choice="perhaps")
    with pytest.raises(RelayqError, match="what is the answer"):
        result.answer("  ")
    result.answer("yes")
    with pytest.raises(Conflict):
        result.answer("and no")


def test_a_parked_command_wants_a_verdict_and_no_answer(fleet, host, job):
    result = job.run("true")
    claim = host.ask()
    host.finish(claim.token, JobState.NEEDS_HUMAN)

    with pytest.raises(Conflict, match="is to be judged"):
        result.answer("well done")
    result.answer("done")
    assert result.state == "succeeded"
