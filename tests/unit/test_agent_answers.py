"""The one schema of agents' results, and what isn't one."""

from __future__ import annotations

import json

import pytest

from relayq.agents.answers import Answer, Denial, ErrorClass, Status, Usage

FULL = Answer(
    agent="claude",
    status=Status.NEEDS_HUMAN,
    error_class=ErrorClass.NEEDS_REVIEW,
    session_id="s",
    structured={"a": [1, None]},
    resets_at=5.5,
    turns=3,
    usage=Usage(1, 2, 3, 4),
    usage_total=Usage(5, 6),
    denials=(Denial("Bash", "rm x", "Bash"),),
    exit_code=0,
)


def test_an_answer_survives_json():
    assert Answer.from_dict(json.loads(json.dumps(FULL.as_dict()))) == FULL


def test_a_field_that_nobody_knows_is_left_out():
    assert Answer.from_dict({**FULL.as_dict(), "mood": "good"}) == FULL


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "fine"},
        {"error_class": "bad luck"},
        {"resets_at": "tomorrow"},
        {"resets_at": float("nan")},
        {"resets_at": True},
        {"resets_at": 10**400},
        {"text": None},
        {"session_id": 5},
        {"turns": 1.5},
        {"tool_failures": None},
        {"is_context_lost": 1},
        {"usage": None},
        {"usage": {"input": "many"}},
        {"usage": {"input": -1}},
        {"usage": {"eggs": 1}},
        {"usage_total": []},
        {"denials": None},
        {"denials": [{"tool": 5}]},
        {"denials": [{"colour": "red"}]},
    ],
)
def test_what_a_job_may_have_put_into_its_report_is_no_answer(wrong):
    with pytest.raises(ValueError, match="."):
        Answer.from_dict({**FULL.as_dict(), **wrong})


def test_an_answer_needs_an_agent_and_a_status():
    with pytest.raises(ValueError, match="no answer of an agent"):
        Answer.from_dict({"agent": "claude"})


def test_tokens_are_added_and_subtracted():
    assert Usage(1, 2) + Usage(3, 4, 5) == Usage(4, 6, 5)
    assert Usage(10, 5).less(Usage(4, 9)) == Usage(6, 0)
    assert Usage(1, 2, 3, 4).total == 10
