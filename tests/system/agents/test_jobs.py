"""Agent jobs with the real programs, from the submit to what comes back."""

from __future__ import annotations

import os

import pytest

from tests.agents.install import PROGRAMS
from tests.agents.replies import Fail
from tests.agents.scenarios import scenario
from tests.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.agents]


@pytest.mark.parametrize("agent", PROGRAMS)
def test_an_answer_comes_back_with_its_session_its_tokens_and_a_readable_transcript(fleet, agent):
    job = fleet.ask(agent)

    fleet.until_state(job, "succeeded")

    answer = fleet.answer(job)
    assert (answer["agent"], answer["status"], answer["text"]) == (agent, "ok", "the answer is 42")
    assert answer["session_id"]
    # Gemini asks a router first, which counts.
    assert answer["usage"]["output"] == (60 if agent == "gemini" else 30)
    assert (answer["cost_usd"] or 0) > 0 or agent != "claude"
    assert "the answer is 42" in job.text
    assert not {"{", "\x1b"} & set(job.text)
    sessions = fleet.relay.session().store.sessions.list(agent=agent)
    assert answer["session_id"] in {session.id for session in sessions}


def test_a_worker_that_is_not_root_runs_them(fleet):
    fleet.api.play("runs a command", command="id -u > user.txt")
    job = fleet.ask("claude", permission="edit")

    fleet.until_state(job, "succeeded")

    written = (fleet.place.work / "user.txt").read_text().strip()
    assert written == str(fleet.as_user.get("user", os.geteuid()))


@pytest.mark.parametrize("agent", PROGRAMS)
def test_an_agent_that_may_edit_edits_a_file(fleet, agent):
    path = fleet.place.work / f"made-by-{agent}.txt"
    fleet.api.play("writes a file", path=str(path))
    job = fleet.ask(agent, permission="edit")

    fleet.until_state(job, "succeeded")

    assert path.read_text() == "written by the agent\n"
    assert str(path) in job.text or path.name in job.text


@pytest.mark.parametrize("agent", PROGRAMS)
def test_an_agent_that_may_only_read_changes_nothing(fleet, agent):
    path = fleet.place.work / f"untouched-{agent}.txt"
    fleet.api.play("runs a command", command=f"touch {path}")
    job = fleet.ask(agent, permission="read_only")

    until(lambda: job.record.state in {"succeeded", "needs_human"}, within=40, what="the end")

    assert not path.exists()


def test_keys_and_prompts_are_in_no_command_line_and_no_transcript(fleet):
    seen = fleet.place.work / "seen.txt"
    command = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' > {seen}"
    leak = f"cat {fleet.home}/agents.env; echo home=$RELAYQ_HOME."
    fleet.api.play("runs a command", command=f"{command}; {leak}")
    job = fleet.ask("claude", "the word is quokka", permission="full")

    fleet.until_state(job, "succeeded")

    command_lines = seen.read_text()
    assert "relayq" in command_lines
    assert not [word for word in ("quokka", "dummy-key") if word in command_lines]
    assert "dummy-key" not in job.text
    assert "dummy-key" not in str(fleet.answer(job))
    # What the model was told, it was told by the tool: the key was there to be masked.
    assert "dummy-key-of-claude" in fleet.api.asked[-1].turn.said
    assert "home=." in fleet.api.asked[-1].turn.said


def test_a_session_goes_on_in_another_job_and_the_last_one_by_itself(fleet):
    first = fleet.ask("claude", "the word is quokka")
    fleet.until_state(first, "succeeded")
    session = fleet.answer(first)["session_id"]

    named = fleet.ask("claude", "which word?", session=session)
    fleet.until_state(named, "succeeded")
    last = fleet.ask("claude", "which again?", continue_=True)
    fleet.until_state(last, "succeeded")
    forked = fleet.ask("claude", "and now?", session=session, fork=True)
    fleet.until_state(forked, "succeeded")

    assert {fleet.answer(job)["session_id"] for job in (named, last)} == {session}
    assert fleet.answer(forked)["forked_from"] == session
    for word in ("quokka", "which word?", "which again?"):
        assert word in fleet.api.asked[-1].turn.said


def test_a_plain_model_behind_an_api_answers_as_well(fleet):
    fleet.api.play("first", times=1, reply=Fail(429, "busy", retry_after=1), then=scenario("text"))
    job = fleet.ask("ollama", "what is the answer?", cwd=None)

    fleet.until_state(job, "succeeded")

    answer = fleet.answer(job)
    assert (answer["text"], answer["model"]) == ("the answer is 42", "mock")
    assert answer["usage"]["output"] == 30
    assert job.get() == "the answer is 42"
