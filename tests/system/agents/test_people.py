"""What only a person can move on waits for one, and the same session goes on with the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.agents.scenarios import scenario

pytestmark = [pytest.mark.system, pytest.mark.agents]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}


def answered(fleet, job, choice=1):
    """Answer a job by one of the choices that it gives; return its last answer."""
    job.answer(choice=choice)
    fleet.until_state(job, "succeeded")
    return fleet.answer(job)


def test_a_denied_tool_is_asked_for_and_used_once_it_is_allowed(fleet):
    path = fleet.place.work / "allowed.txt"
    command = f'python3 -c \'open("{path}", "w")\''
    fleet.api.play("runs a command", command=command)
    job = fleet.ask("claude", "make that file")
    record = fleet.until_state(job, "needs_human")
    before = fleet.answer(job)
    assert (before["error_class"], "Bash" in record.question) == ("needs_review", True)
    assert not path.exists()

    fleet.api.play(lambda turn: scenario("runs a command", command=command)(turn_after(turn)))
    after = answered(fleet, job)

    assert path.exists()
    assert after["session_id"] == before["session_id"]
    assert "make that file" in fleet.api.asked[-1].turn.said


def turn_after(turn):
    """Return the turn as one of a conversation that has had a tool's result before."""
    return replace(turn, results=turn.results - 1)


@pytest.mark.parametrize("agent", ["claude", "codex"])
def test_a_wrong_login_waits_for_a_person(fleet, agent):
    fleet.api.play("unauthorized")
    job = fleet.ask(agent)

    record = fleet.until_state(job, "needs_human")
    before = fleet.answer(job)
    fleet.api.play("text")
    after = answered(fleet, job)

    assert (before["error_class"], record.reason) == ("auth", "auth")
    assert "log in" in record.question
    assert after["text"] == "the answer is 42"


def test_a_refusal_waits_for_a_person(fleet):
    fleet.api.play("refuses")
    job = fleet.ask("claude")

    record = fleet.until_state(job, "needs_human")

    assert fleet.answer(job)["error_class"] == "refused"
    assert "refuses" in record.question
    job.cancel()


@pytest.mark.parametrize("agent", ["claude", "gemini"])
def test_an_endless_loop_ends_at_the_limit_of_turns_and_may_be_let_go_on(fleet, agent):
    fleet.api.play("loops", command="echo again")
    job = fleet.ask(agent, permission="full", max_turns=3)

    record = fleet.until_state(job, "needs_human")
    before = fleet.answer(job)
    assert (before["error_class"], "turns" in record.question) == ("max_turns", True)
    assert len(fleet.api.asked) <= 4

    fleet.api.play("text")
    assert answered(fleet, job)["session_id"] == before["session_id"]


def test_an_answer_that_lacks_the_form_asked_for_waits_for_a_person(fleet):
    job = fleet.ask("claude", schema=SCHEMA)

    fleet.until_state(job, "needs_human")
    assert fleet.answer(job)["error_class"] == "needs_review"

    fleet.api.play("structured", value={"answer": 42})
    assert answered(fleet, job)["structured"] == {"answer": 42}


def test_a_budget_that_is_used_up_waits_for_a_person(fleet):
    fleet.api.play("loops", command="echo again")
    job = fleet.ask("claude", budget=0.002)

    fleet.until_state(job, "needs_human")

    assert fleet.answer(job)["error_class"] == "budget"
    job.cancel()
