"""Parsers of agents' output: whatever the lines are, nothing raises and little is kept."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayq.agents import adapters, classify, render
from relayq.agents.answers import Answer, Usage
from relayq.agents.events import (
    Denied,
    Finished,
    Limited,
    Noted,
    Retrying,
    Said,
    Started,
    ToolCalled,
    ToolEnded,
)
from relayq.agents.order import Order
from relayq.agents.parsers import parser_named
from relayq.agents.reading import LONGEST_LINE, LONGEST_TEXT
from relayq.agents.summaries import Summary
from relayq.errors import RelayqError

FORMATS = adapters.PARSERS
WORDS = (
    "type subtype system init result success assistant user message content text tool_use "
    "tool_result is_error error errors status item item.completed item.started agent_message "
    "turn.completed turn.failed usage stats models tokens modelUsage permission_denials session_id "
    "rate_limit_event rate_limit_info resetsAt rejected delta role command_execution changes "
    "http.response http.error headers choices finish_reason api_retry api_error_status"
).split()

keys = st.sampled_from(WORDS) | st.text(max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | keys
    | st.text(st.characters(codec=None, categories=["L", "Cc", "Cs", "Cf", "P"]), max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=8,
)
objects = st.dictionaries(keys, values, max_size=8).map(json.dumps)
garbage = st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
half = st.tuples(objects, st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]])
any_line = objects | garbage | half | st.sampled_from(["{", "}", "", "data: [DONE]", "data: {"])


@pytest.mark.parametrize("name", FORMATS)
@given(lines=st.lists(any_line, max_size=5), code=st.none() | st.integers(-64, 300))
@settings(max_examples=20, deadline=None)
def test_any_lines_lead_to_an_answer_that_a_file_and_redis_take(name, lines, code):
    parser, summary, transcript = parser_named(name), Summary(), render.Transcript()
    events = [event for line in lines for event in parser.feed(line)]
    events += [event for line in lines for event in parser.feed_error(line)]
    events += parser.finish(code)
    shown = []
    for event in events:
        summary.add(event)
        shown += transcript.lines(event)

    answer = classify.answer(
        summary,
        order=Order(agent="x", adapter={"parser": name}, prompt="hi"),
        stderr="\n".join(lines),
        exit_code=code,
        signal=None,
        ended_by=None,
        now=1_795_222_000.0,
    )

    assert Answer.from_dict(json.loads(json.dumps(answer.as_dict()))).status == answer.status
    assert all(line.isprintable() for line in [*shown, *transcript.rest()])


@pytest.mark.parametrize("name", FORMATS)
def test_nesting_without_end_is_no_object(name):
    parser = parser_named(name)

    events = [*parser.feed('{"type":' * 100_000), *parser.feed("[" * 100_000)]

    assert not [event for event in events if isinstance(event, Finished)]


@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_grow_with_what_an_agent_says(name):
    parser, summary = parser_named(name), Summary()
    lines = [
        json.dumps({"type": "message", "role": "assistant", "content": "x" * 10_000}),
        json.dumps({"type": "item.completed", "item": {"type": "agent_message", "text": "x" * 9}}),
        json.dumps({"type": "item.started", "item": {"type": "command_execution", "id": "%d"}}),
        json.dumps({"choices": [{"delta": {"content": "x" * 10_000}}]}),
        "x" * 10_000,
        "{",
    ]
    tracemalloc.start()
    for number in range(400):
        for line in lines:
            # Each a text of its own: one that is kept many times would cost nothing.
            for event in parser.feed(line.replace("%d", str(number)) + " " * (number % 7 + 1)):
                summary.add(event)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 6 * LONGEST_TEXT


@pytest.mark.parametrize("name", ["claude_stream", "codex_jsonl", "gemini_stream", "jsonl"])
def test_a_line_of_50_mb_is_named_and_not_read(name):
    line = '{"type":"user","content":"' + "x" * 50_000_000 + '"}'
    assert len(line) > LONGEST_LINE

    assert parser_named(name).feed(line) == (Noted("(a line of 50 MB, left out here)"),)


def test_a_parser_that_nobody_knows_is_named():
    with pytest.raises(RelayqError, match="no such parser: 'xml'"):
        parser_named("xml")


def line(**value):
    return json.dumps(value)


def test_claude_says_what_it_waits_for_and_how_much_is_used():
    parser = parser_named("claude_stream")

    retry = parser.feed(
        line(
            type="system",
            subtype="api_retry",
            attempt=2,
            retry_delay_ms=2000,
            error_status=429,
            error="rate_limit",
        )
    )
    used = parser.feed(
        line(
            type="rate_limit_event",
            rate_limit_info={"status": "rejected", "resetsAt": 5, "rateLimitType": "five_hour"},
        )
    )

    assert retry == (Retrying(2, 2.0, "rate_limit", 429),)
    assert used == (Limited(resets_at=5.0, sort="five_hour", is_rejected=True),)


def test_claude_names_servers_that_did_not_start():
    servers = [{"name": "relayq", "status": "failed"}, {"name": "x", "status": "connected"}]

    events = parser_named("claude_stream").feed(
        line(type="system", subtype="init", session_id="s", mcp_servers=servers)
    )

    assert events == (Started(session_id="s"), Noted("MCP server relayq failed to start"))


def test_a_success_without_its_word_for_it_is_none():
    parser = parser_named("claude_stream")

    (finished,) = parser.feed(line(type="result", subtype="success", result="fine"))

    assert finished.is_error


def result(**known):
    """Return what claude's last word is read as."""
    value = {"type": "result", "subtype": "success", "is_error": False, **known}
    (finished,) = parser_named("claude_stream").feed(json.dumps(value))
    return finished


def test_half_of_a_surrogate_pair_becomes_a_question_mark():
    assert result(result="a\ud800b").text == "a?b"


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1, True, "0.1", None, 10**400])
def test_what_is_no_number_is_none(cost):
    assert result(total_cost_usd=cost).cost_usd is None


def test_a_success_that_is_called_an_error_is_none():
    parser = parser_named("claude_stream")

    (finished,) = parser.feed(line(type="result", subtype="error_max_turns", is_error=False))

    assert finished.is_error


def test_claude_s_tokens_are_those_of_all_its_models():
    used = {"inputTokens": 5, "outputTokens": 2}
    zero = {"input_tokens": 0, "output_tokens": 0}
    result = {"type": "result", "subtype": "success", "is_error": False, "usage": zero}

    (finished,) = parser_named("claude_stream").feed(
        line(**result, modelUsage={"haiku": used, "opus": {**used, "cacheReadInputTokens": 90}})
    )

    assert finished.usage == Usage(input=10, output=4, cache_read=90)
    assert finished.model == "opus"


def test_an_error_of_the_api_is_not_claude_s_own_words():
    message = {"content": [{"type": "text", "text": "Not logged in"}]}

    events = parser_named("claude_stream").feed(
        line(type="assistant", message=message, error="authentication_failed")
    )

    assert events == (Noted("Not logged in", is_error=True),)


def test_a_reset_that_no_calendar_has_is_none():
    info = {"status": "rejected", "resetsAt": 2**52}

    (event,) = parser_named("claude_stream").feed(
        line(type="rate_limit_event", rate_limit_info=info)
    )

    assert event == Limited(is_rejected=True)
    assert render.lines(event)


def test_codex_says_once_that_it_uses_a_tool():
    parser = parser_named("codex_jsonl")
    item = {"id": "1", "type": "command_execution", "command": "ls"}

    began = parser.feed(line(type="item.started", item=item))
    ended = parser.feed(line(type="item.completed", item={**item, "exit_code": 0}))

    assert began == (ToolCalled("1", "shell", "ls"),)
    assert ended == (ToolEnded("1"),)


def test_codex_tools_that_never_end_are_not_remembered_for_ever():
    parser = parser_named("codex_jsonl")
    tracemalloc.start()
    for number in range(8_000):
        item = {"id": f"{number:0190}", "type": "command_execution", "command": "x"}
        parser.feed(line(type="item.started", item=item))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < LONGEST_TEXT


def test_codex_names_the_status_that_it_waits_for():
    message = "Reconnecting... 2/5 (exceeded retry limit, last status: 429 Too Many Requests)"

    (event,) = parser_named("codex_jsonl").feed(line(type="error", message=message))

    assert (event.attempt, event.status) == (2, 429)


def test_codex_tools_are_shown_whatever_their_kind():
    parser = parser_named("codex_jsonl")
    items = [
        {"id": "1", "type": "command_execution", "command": "false", "exit_code": 1},
        {"id": "2", "type": "file_change", "changes": [{"kind": "add", "path": "a.py"}]},
        {"id": "3", "type": "mcp_tool_call", "server": "relayq", "tool": "ps", "status": "failed"},
        {"id": "4", "type": "web_search", "query": "redis streams"},
    ]

    events = [e for item in items for e in parser.feed(line(type="item.completed", item=item))]

    called = [(e.name, e.summary) for e in events if isinstance(e, ToolCalled)]
    assert called == [
        ("shell", "false"),
        ("edit", "add a.py"),
        ("relayq.ps", "null"),
        ("web_search", "redis streams"),
    ]
    ended = [e.is_error for e in events if isinstance(e, ToolEnded)]
    assert ended == [True, False, True, False]


def test_gemini_says_on_standard_error_that_it_waits():
    parser = parser_named("gemini_stream")

    (first,) = parser.feed_error("Attempt 3 failed: You exceeded your current quota, please check.")
    (second,) = parser.feed_error("Suggested retry after 2s.. Retrying after 22963ms...")
    last = parser.feed_error("Attempt 10 failed: It is overloaded.. Max attempts reached")

    assert (first.attempt, second.attempt, second.delay) == (3, 3, 22.963)
    assert second.error == first.error
    assert last == ()


def test_gemini_tools_that_were_withheld_are_told_from_slips_of_the_model():
    parser = parser_named("gemini_stream")

    withheld = parser.feed_error('Error executing tool x: Tool "run_shell_command" not found.')
    slip = parser.feed_error('Error executing tool x: Tool "run_shel" not found.')

    assert [event.denial.tool for event in withheld if isinstance(event, Denied)] == [
        "run_shell_command"
    ]
    assert slip == ()


def test_gemini_words_before_a_tool_are_not_its_answer():
    parser = parser_named("gemini_stream")
    parser.feed(line(type="message", role="assistant", content="I will look.", delta=True))
    parser.feed(line(type="tool_use", tool_id="1", tool_name="read_file", parameters={}))
    parser.feed(line(type="message", role="assistant", content="It is ", delta=True))
    parser.feed(line(type="message", role="assistant", content="fine.", delta=True))

    (finished,) = parser.feed(line(type="result", status="success"))

    assert finished.text == "It is fine."


def test_an_answer_without_end_is_cut():
    parser = parser_named("text")
    for _ in range(3):
        parser.feed("x" * LONGEST_TEXT)

    (finished,) = parser.finish(0)

    assert len(finished.text) == LONGEST_TEXT


def test_an_object_that_is_not_gemini_s_is_no_last_word():
    parser = parser_named("gemini_stream")

    assert [parser.feed(part) for part in ("{", '"a": 1', "}")] == [(), (), ()]


def test_a_person_s_own_words_are_not_the_agent_s():
    parser = parser_named("jsonl")

    assert parser.feed(line(role="user", content="do it")) == ()
    assert parser.feed(line(message={"role": "user", "content": "do it"})) == ()


def test_an_error_in_unknown_events_is_one():
    assert parser_named("jsonl").feed(line(type="error", message="no")) == (
        Noted("no", is_error=True),
    )


def test_an_agent_that_only_prints_is_judged_by_its_exit_code():
    parser = parser_named("text")
    assert parser.feed("I changed a.py") == (Said("I changed a.py"),)

    (good,) = parser.finish(0)
    (bad,) = parser.finish(1)

    assert (good.is_error, good.text, good.is_judged_by_exit) == (False, "I changed a.py", True)
    assert bad.is_error
    assert parser.finish(None) == ()


@pytest.mark.parametrize(
    "value",
    [
        {"type": "text", "part": {"type": "text", "text": "hello"}},
        {"type": "message", "message": {"role": "assistant", "content": [{"text": "hello"}]}},
        {"type": "assistant.message", "content": "hello"},
    ],
)
def test_words_are_found_in_events_that_nobody_described(value):
    assert parser_named("jsonl").feed(json.dumps(value)) == (Said("hello"),)
