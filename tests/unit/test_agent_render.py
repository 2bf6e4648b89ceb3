"""What a person reads of an agent's run while it goes on."""

from __future__ import annotations

import pytest

from relayq.agents.answers import Denial, Usage
from relayq.agents.events import (
    Denied,
    Exited,
    Finished,
    Limited,
    Noted,
    Retrying,
    Said,
    Started,
    ToolCalled,
    ToolEnded,
)
from relayq.agents.render import Transcript, lines


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            Started("s-1", "sonnet", "2.1.197", "acceptEdits"),
            ["- started: 2.1.197, sonnet, acceptEdits, session s-1"],
        ),
        (Started(), ["- started: no details"]),
        (Said("one\n\ntwo"), ["one", "", "two"]),
        (ToolCalled("1", "Bash", "make test"), ["> Bash: make test"]),
        (ToolCalled("1", "ExitPlan"), ["> ExitPlan"]),
        (ToolEnded("1", text="ok\nfine"), ["| ok", "| fine"]),
        (ToolEnded("1", is_error=True, text="no"), ["! no"]),
        (ToolEnded("1", is_error=True), ["! it failed"]),
        (ToolEnded("1"), []),
        (Denied(Denial("Bash", "rm x")), ["! may not use Bash rm x"]),
        (
            Retrying(3, 2.0, "rate_limit", 429),
            ["~ waits for its API (429 rate_limit, attempt 3, again in 2 s)"],
        ),
        (Retrying(), ["~ waits for its API (no answer)"]),
        (
            Limited(1_795_225_576, "five_hour", 0.93),
            ["~ 93% of the five_hour limit is used; it resets at 2026-11-21 01:46 UTC"],
        ),
        (Limited(is_rejected=True), ["~ the account limit is used up"]),
        (Noted("the history was made shorter"), ["- the history was made shorter"]),
        (Noted("a\nb", is_error=True), ["! a", "! b"]),
        (
            Finished(is_error=False, turns=2, usage=Usage(10, 5), cost_usd=0.0026),
            ["- done: 2 turns, 15 tokens, $0.0026"],
        ),
        (Finished(is_error=False), ["- done"]),
        (Finished(is_error=True, error="Not logged in"), ["! failed: Not logged in"]),
        (Finished(is_error=True, causes=("error_max_turns",)), ["! failed: error_max_turns"]),
        (Exited(status=429), []),
    ],
)
def test_each_event_has_its_lines(event, shown):
    assert lines(event) == shown


def test_a_long_output_of_a_tool_is_cut():
    shown = lines(ToolEnded("1", text="\n".join(map(str, range(40)))))

    assert len(shown) == 13
    assert shown[-1] == "| (28 more lines)"


def test_a_long_line_is_cut():
    (shown,) = lines(ToolCalled("1", "Bash", "x" * 10_000))

    assert len(shown) == 500
    assert shown.endswith("...")


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x07", "a\rb", "\u202egnp.exe", "\ud800", "\x9b31m"])
def test_no_character_acts_on_a_terminal(evil):
    events = [
        Said(evil),
        Said(evil, is_partial=True),
        ToolCalled("1", evil, evil),
        ToolEnded("1", text=evil),
        Denied(Denial(evil, evil)),
        Retrying(error=evil),
        Limited(sort=evil),
        Noted(evil),
        Started(evil, evil, evil, evil),
        Finished(is_error=True, error=evil),
    ]
    transcript = Transcript()

    shown = [line for event in events for line in transcript.lines(event)]

    assert all(line.isprintable() for line in shown)


def test_words_that_come_in_pieces_are_put_together():
    transcript = Transcript()

    shown = [transcript.lines(Said(piece, is_partial=True)) for piece in ("It ", "is\nfi", "ne.")]

    assert shown == [[], ["It is"], []]
    assert transcript.lines(ToolCalled("1", "Bash")) == ["fine.", "> Bash"]
    assert transcript.rest() == []


def test_a_line_without_end_is_shown_in_parts():
    transcript = Transcript()

    shown = [line for _ in range(500) for line in transcript.lines(Said("x" * 10, is_partial=True))]

    assert sum(map(len, shown)) > 4000
    assert len(transcript.rest()[0]) <= 2000
