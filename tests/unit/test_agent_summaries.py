"""What is kept of a run while it goes on."""

from __future__ import annotations

from relayq.agents.answers import Denial
from relayq.agents.events import Denied, Noted, Retrying, Said, ToolCalled, ToolEnded
from relayq.agents.reading import LONGEST_TEXT
from relayq.agents.summaries import Summary


def test_a_summary_keeps_each_denial_once_and_not_without_end():
    summary = Summary()
    for number in range(100):
        summary.add(Denied(Denial("Bash", str(number // 2))))

    assert len(summary.denials) == 20
    assert [denial.input for denial in summary.denials[:3]] == ["0", "1", "2"]


def test_a_wait_is_over_with_the_next_progress_and_keeps_what_is_known_of_it():
    summary = Summary()
    summary.add(Retrying(1, None, "too many requests", 429))
    summary.add(Retrying(1, 5.0))
    assert summary.retrying == Retrying(1, 5.0, "too many requests", 429)
    assert not summary.is_progressing

    summary.add(Noted("still here"))
    assert not summary.is_progressing

    summary.add(Said("done"))
    assert summary.is_progressing


def test_a_turn_is_what_comes_before_a_tool_s_answer():
    summary, turns = Summary(), []
    for event in (
        Said("I "),
        ToolCalled("1", "Read"),
        ToolCalled("2", "Read"),
        ToolEnded("1"),
        ToolEnded("2"),
        Noted("a note"),
        ToolCalled("3", "Bash"),
        ToolEnded("3"),
        Said("done", is_partial=True),
        Said(".", is_partial=True),
    ):
        summary.add(event)
        turns.append(summary.turns)

    assert turns == [1, 1, 1, 1, 1, 1, 2, 2, 3, 3]


def test_a_summary_has_the_words_since_the_last_tool_and_not_without_end():
    summary = Summary()
    for event in (Said("I will look."), ToolCalled("1", "Read"), Said("It ", True), Said("is")):
        summary.add(event)
    assert summary.said == "It is"

    for _ in range(3):
        summary.add(Said("x" * LONGEST_TEXT))
    assert len(summary.said) <= LONGEST_TEXT


def test_a_tool_is_in_use_until_it_comes_back():
    summary = Summary()
    seen = []
    for event in (
        ToolCalled(id="a", name="Bash", summary=""),
        ToolCalled(id="b", name="Read", summary=""),
        ToolEnded(id="a", is_error=False, text=""),
        ToolEnded(id="b", is_error=True, text=""),
    ):
        summary.add(event)
        seen.append(summary.is_using_tools)

    assert seen == [True, True, True, False]
