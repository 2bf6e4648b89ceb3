"""The kinds of agents: what may be asked, which process that becomes, and what its end means."""

import json
import sys
from dataclasses import replace

import pytest

from relayq.agents.answers import Answer, Denial, ErrorClass, Status, Usage
from relayq.agents.order import Order
from relayq.errors import RelayqError
from relayq.kinds import Ended, HostFacts, find, names
from relayq.model.jobs import JobState

PI4 = HostFacts("pi4", "/home/pi", "/home/pi/.relayq/agents")


@pytest.fixture
def declared():
    return find("run_agent")


def order(declared, host=PI4, **asked):
    payload = declared.read_payload({"agent": "claude", "prompt": "please", **asked})
    command = declared.kind.plan(payload, host)
    return Order.from_dict(json.loads(command.stdin))


def test_claude_is_an_agent_that_need_not_be_named():
    assert {"run_agent", "run_claude"} <= set(names())
    payload = find("run_claude").read_payload({"prompt": "please"})

    assert (payload.agent, payload.accounts) == ("claude", ("claude/default",))


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({}, "run_agent needs 'agent'"),
        ({"agent": "claude"}, "run_agent needs 'prompt'"),
        ({"agent": "", "prompt": "x"}, "no agent is named"),
        ({"agent": "claude", "prompt": " \n"}, "the prompt is empty"),
        ({"agent": "claude", "prompt": 5}, "prompt must be text"),
        ({"agent": "claude", "prompt": "x", "permission": "yolo"}, "read_only, edit, full"),
        ({"agent": "claude", "prompt": "x", "max_turns": 0}, "from 1 on"),
        ({"agent": "claude", "prompt": "x", "max_turns": True}, "from 1 on"),
        ({"agent": "claude", "prompt": "x", "budget": float("nan")}, "above 0"),
        ({"agent": "claude", "prompt": "x", "tools": "Bash"}, "tools must be texts"),
        ({"agent": "claude", "prompt": "x", "args": ["\0"]}, "NUL"),
        ({"agent": "claude", "prompt": "x", "schema": "{}"}, "schema must be a table"),
        ({"agent": "claude", "prompt": "x", "env": {"A=B": "c"}}, "can't be empty or hold '='"),
        ({"agent": "claude", "prompt": "x", "fork": True}, "only a session can be forked"),
        ({"agent": "claude", "prompt": "x", "session": "s", "continue_": True}, "not both"),
        ({"agent": "claude", "prompt": "x", "prompts": 1}, "has no field 'prompts'"),
    ],
)
def test_a_wrong_payload_is_refused_with_the_reason(declared, raw, complaint):
    with pytest.raises(RelayqError, match=complaint):
        declared.read_payload(raw)


def test_the_order_goes_by_standard_input_and_nowhere_else(declared):
    payload = declared.read_payload({"agent": "claude", "prompt": "my secret plan"})

    command = declared.kind.plan(payload, PI4)

    assert command.argv[0] == sys.executable
    assert "my secret plan" not in " ".join(command.argv)
    assert not command.env
    assert json.loads(command.stdin)["prompt"] == "my secret plan"


def test_the_host_says_what_it_allows_an_agent(declared):
    claude = {"command": "/opt/claude", "stall": 60.0, "allow_root_sandbox": True}
    host = HostFacts("pi4", "/home/pi", "/s", agents={"claude": claude})

    found = order(declared, host)

    assert (found.adapter["command"], found.limits.stall) == ("/opt/claude", 60.0)
    assert found.is_root_allowed


def test_a_slip_in_another_agents_entry_is_not_this_ones(declared):
    agents = {"codex": {"comand": "x"}, "claude": {"mode": "edit"}}
    host = HostFacts("pi4", "/home/pi", "/s", agents=agents)

    assert order(declared, host).agent == "claude"
    with pytest.raises(RelayqError, match="agents.codex: unknown key 'comand'"):
        order(declared, host, agent="codex")


def test_the_account_of_the_claim_chooses_the_agent(declared):
    host = HostFacts("pi4", "/home/pi", "/s", account="codex/default")

    found = order(declared, host, fallbacks=["codex"], model="opus", session="s", args=["-x"])

    assert (found.agent, found.account, found.adapter["name"]) == ("codex", "default", "codex")
    assert (found.model, found.session, found.args) == (None, None, ())


@pytest.mark.parametrize(
    ("asked", "account", "complaint"),
    [
        ({}, "codex/default", "doesn't name the account 'codex/default'"),
        ({"account": "work"}, "claude/work", "knows no account claude/work"),
        ({"agent": "cloude"}, "", "no such agent: 'cloude' .did you mean 'claude'"),
    ],
)
def test_what_a_host_does_not_know_is_refused(declared, asked, account, complaint):
    host = HostFacts("pi4", "/home/pi", "/s", account=account)

    with pytest.raises(RelayqError, match=complaint):
        order(declared, host, **asked)


def test_a_persons_answer_is_part_of_the_order(declared):
    host = HostFacts("pi4", "/home/pi", "/s", answer={"text": "do", "allow": ["Bash"]})

    reply = order(declared, host).answer

    assert (reply.text, reply.allow) == ("do", ("Bash",))


# The verdict


def ended(answer, **facts):
    report = {"answer": answer.as_dict(), "home": "/home/pi", "has_sessions": True}
    return Ended(0, None, "exit", report=json.loads(json.dumps(report)), at=1000.0, **facts)


def answer(**facts):
    given = {"agent": "claude", "status": Status.OK, "account": "claude/default"}
    return Answer(**{**given, "session_id": "s1", "host": "pi4", "cwd": "/w", **facts})


def test_a_success_is_the_answer_with_its_costs_and_its_session(declared):
    good = answer(text="42", cost_usd=0.5, turns=3, usage=Usage(10, 5, 2, 1))

    verdict = declared.kind.interpret(ended(good))

    assert (verdict.state, verdict.result["text"]) == (JobState.SUCCEEDED, "42")
    assert verdict.usage == {"cost_usd": 0.5, "input": 13, "output": 5}
    assert (verdict.session["id"], verdict.session["turns"]) == ("s1", 3)
    assert verdict.session["home"] == "/home/pi"


def test_a_runner_without_a_report_has_crashed_and_is_tried_once_more(declared):
    lost = Ended(None, 9, "signal")
    assert declared.kind.interpret(lost).state is JobState.SCHEDULED

    last = declared.kind.interpret(Ended(None, 9, "signal", failures=1))
    assert (last.state, last.error) == (
        JobState.FAILED,
        "crashed: its runner ended without a report (signal 9)",
    )


@pytest.mark.parametrize("report", [{}, {"answer": 5}, {"answer": {"status": "fine"}}])
def test_a_report_that_is_none_counts_as_no_report(declared, report):
    verdict = declared.kind.interpret(Ended(0, None, "exit", report=report))

    assert verdict.result["error_class"] == ErrorClass.CRASHED


def test_a_denial_is_a_question_whose_choices_are_signed_with_the_answer(declared):
    denial = Denial("Bash", "rm x", "Bash(rm x)")
    denied = answer(
        status=Status.NEEDS_HUMAN, error_class=ErrorClass.NEEDS_REVIEW, denials=(denial,)
    )

    verdict = declared.kind.interpret(ended(denied))

    assert (verdict.state, verdict.stays) == (JobState.NEEDS_HUMAN, True)
    assert "Bash" in verdict.question
    assert verdict.choices == tuple(one["label"] for one in verdict.result["choices"])
    assert verdict.result["choices"][0]["allow"] == ["Bash(rm x)"]


def test_a_usage_limit_is_waited_for_uncounted_unless_there_is_another_agent(declared):
    limit = answer(status=Status.REQUEUED, error_class=ErrorClass.USAGE_LIMIT, resets_at=5000.0)

    waits = declared.kind.interpret(ended(limit))
    assert (waits.state, waits.counts, waits.stays) == (JobState.SCHEDULED, "", True)
    assert waits.until == waits.account_until >= 5000.0

    moves = declared.kind.interpret(ended(limit, fallbacks=True))
    assert (moves.next_agent, moves.delay, moves.account_until) == (True, 0.0, waits.until)


# Files


def test_an_agent_works_where_the_files_of_its_job_are(declared):
    host = replace(PI4, scratch="/scratch/j1")
    named = declared.read_payload({"agent": "claude", "prompt": "x", "cwd": "~/repo"})
    bare = declared.read_payload({"agent": "claude", "prompt": "x"})

    assert declared.kind.plan(named, host).cwd == "/home/pi/repo"
    assert declared.kind.plan(bare, host).cwd == "/scratch/j1"
    assert order(declared, host).cwd == "/scratch/j1"


@pytest.mark.parametrize("which", [{"session": "s1"}, {"continue_": True}])
def test_files_for_a_session_need_its_directory(declared, which):
    host = replace(PI4, scratch="/scratch/j1")

    with pytest.raises(RelayqError, match="name it"):
        order(declared, host, **which)
    assert order(declared, host, cwd="/repo", **which).cwd == "/repo"
