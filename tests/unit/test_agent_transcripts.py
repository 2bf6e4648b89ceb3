"""Runs of the real claude 2.1.197, codex 0.169 and gemini 0.61, from their lines to an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relayq.agents import adapters, classify, render
from relayq.agents.answers import Answer, ErrorClass, Status, Usage
from relayq.agents.order import Order
from relayq.agents.parsers import parser_named
from relayq.agents.summaries import Summary

RECORDED = Path(__file__).parent.parent / "fixtures" / "agents"
NOW = 1_795_222_000.0  # when the transcripts were recorded: 2026-11-21, shortly before 1 am
AGENTS = adapters.load()


@dataclass
class Run:
    """One recorded run, replayed."""

    exit_code: int | None
    stdout: list[str]
    stderr: list[str]
    summary: Summary = field(default_factory=Summary)

    def answer(self, agent: str, *, ended_by: str | None = None, **asked: Any) -> Answer:
        """Return the answer that the lines lead to, as the runner on a host does."""
        parser = parser_named(AGENTS[agent].parser)
        for line in self.stdout:
            for event in parser.feed(line):
                self.summary.add(event)
        for line in self.stderr:
            for event in parser.feed_error(line):
                self.summary.add(event)
        code = self.exit_code if self.exit_code is not None and self.exit_code >= 0 else None
        for event in parser.finish(code):
            self.summary.add(event)
        before = asked.pop("usage_before", None)
        return classify.answer(
            self.summary,
            order=Order(agent=agent, adapter=AGENTS[agent].as_dict(), prompt="hi", **asked),
            stderr="\n".join(self.stderr),
            exit_code=code,
            signal=None if code is not None else -(self.exit_code or 0),
            ended_by=ended_by,
            now=NOW,
            usage_before=before,
        )


def recorded(name: str) -> Run:
    head, _, rest = (RECORDED / f"{name}.txt").read_text(encoding="utf-8").partition("\n")
    stdout, _, stderr = rest.removeprefix("--- stdout\n").partition("--- stderr\n")
    return Run(int(head.removeprefix("exit ")), stdout.splitlines(), stderr.splitlines())


ENDS: dict[str, ErrorClass | None] = {
    "claude-03-streamjson": None,
    "claude-10-bash-default-perm": ErrorClass.NEEDS_REVIEW,
    "claude-108-tool-stream": None,
    "claude-11-root-skip-perm": ErrorClass.ROOT,
    "claude-20-429-ra2-stream": ErrorClass.RATE_LIMITED,
    "claude-22-529-json": ErrorClass.OVERLOADED,
    "claude-23-500-json": ErrorClass.TRANSIENT,
    "claude-26-400credit-json": ErrorClass.BILLING,
    "claude-28-404-json": ErrorClass.INVALID,
    "claude-33-refusal": ErrorClass.REFUSED,
    "claude-36-badflag": ErrorClass.INVALID,
    "claude-37-maxturns": ErrorClass.MAX_TURNS,
    "claude-38-budget": ErrorClass.BUDGET,
    "claude-44-429-ra3600": ErrorClass.RATE_LIMITED,
    "claude-50-sublimit-oauth-stream": ErrorClass.USAGE_LIMIT,
    "claude-53-warn-oauth-stream": None,
    "claude-56-nokey": ErrorClass.AUTH,
    "claude-57-connrefused-maxretries1": ErrorClass.TRANSIENT,
    "claude-58-429-oauth-plain-stream": ErrorClass.RATE_LIMITED,
    "claude-59-jsonschema": None,
    "claude-60-jsonschema-plainreply": None,
    "claude-61-session-id-reused": ErrorClass.SESSION_EXISTS,
    "claude-63-resume-fork": None,
    "claude-68b-resume-unknown-stream": ErrorClass.SESSION_NOT_FOUND,
    "claude-80-SIGTERM-slow-stream": ErrorClass.CRASHED,
    "claude-81-SIGINT-slow-stream": ErrorClass.CRASHED,
    "codex-03-json": None,
    "codex-05-bash-ww": None,
    "codex-10-429-ra2": ErrorClass.RATE_LIMITED,
    "codex-12-500": ErrorClass.OVERLOADED,
    "codex-13-401": ErrorClass.AUTH,
    "codex-15-quota": ErrorClass.BILLING,
    "codex-16-usage-limit": ErrorClass.USAGE_LIMIT,
    "codex-20-cut-stream": ErrorClass.TRANSIENT,
    "codex-28-old-flags": ErrorClass.INVALID,
    "codex-41-resume": None,
    "codex-44-resume-unknown": ErrorClass.SESSION_NOT_FOUND,
    "codex-45-resume-badname": None,
    "gemini-01-text": ErrorClass.UNTRUSTED,
    "gemini-04-streamjson": None,
    "gemini-05-yolo-bash": None,
    "gemini-06-default-bash": ErrorClass.NEEDS_REVIEW,
    "gemini-10-429-ra2": ErrorClass.RATE_LIMITED,
    "gemini-12-429-day": ErrorClass.USAGE_LIMIT,
    "gemini-13-500": ErrorClass.TRANSIENT,
    "gemini-14-503": ErrorClass.OVERLOADED,
    "gemini-15-401": ErrorClass.AUTH,
    "gemini-16-400": ErrorClass.AUTH,
    "gemini-17-403": ErrorClass.AUTH,
    "gemini-18-badflag": ErrorClass.INVALID,
    "gemini-20-conn-refused": ErrorClass.TRANSIENT,
    "gemini-23-noprompt": ErrorClass.INVALID,
    "gemini-26-429-ra3600": ErrorClass.USAGE_LIMIT,
    "gemini-41-session-id-reused": ErrorClass.SESSION_EXISTS,
    "gemini-44-resume-unknown": ErrorClass.SESSION_NOT_FOUND,
    "gemini-45-resume-othercwd": ErrorClass.SESSION_NOT_FOUND,
    "gemini-62-killpg-SIGTERM-bash": ErrorClass.CRASHED,
}


@pytest.mark.parametrize(("name", "expected"), ENDS.items(), ids=ENDS)
def test_a_recorded_run_ends_in_the_class_that_it_is_known_for(name, expected):
    answer = recorded(name).answer(name.partition("-")[0])

    assert answer.error_class == expected, answer.message
    assert answer.status == (classify.STATUSES[expected] if expected else Status.OK)
    assert Answer.from_dict(answer.as_dict()) == answer


def test_every_recording_has_its_class():
    assert {path.stem for path in RECORDED.glob("*.txt")} == ENDS.keys()


def test_a_run_that_relayq_ended_while_it_waited_for_its_api_says_for_what_it_waited():
    throttled = recorded("gemini-10-429-ra2").answer("gemini", ended_by="throttle")
    unreachable = recorded("gemini-20-conn-refused").answer("gemini", ended_by="throttle")

    assert throttled.error_class == ErrorClass.RATE_LIMITED
    assert unreachable.error_class == ErrorClass.TRANSIENT


def test_codex_that_waits_in_silence_for_an_hour_was_rate_limited():
    run = Run(
        -15,
        [
            '{"type":"thread.started","thread_id":"t"}',
            '{"type":"error","message":"Reconnecting... 1/2 (exceeded retry limit, last status: '
            '429 Too Many Requests)"}',
        ],
        [],
    )

    answer = run.answer("codex", ended_by="throttle")

    assert not run.summary.is_progressing
    assert answer.error_class == ErrorClass.RATE_LIMITED


def test_codex_that_waits_for_the_network_is_a_broken_connection():
    line = '{"type":"error","message":"Reconnecting... waiting for network (Connection failed)"}'
    answer = Run(-9, [line], []).answer("codex", ended_by="throttle")

    assert answer.error_class == ErrorClass.TRANSIENT


@pytest.mark.parametrize(
    ("exit_code", "line", "expected"),
    [
        (
            17,
            r'{"type":"result","status":"error","error":{"type":"unknown","message":'
            r'"[API Error: {\"error\":{\"code\":529,\"message\":\"Overloaded\"}}]"}}',
            ErrorClass.OVERLOADED,
        ),
        (
            173,
            '{"type":"result","status":"error","error":{"type":"unknown","message":"[API Error: '
            'Too many requests, slow down.]\\nTo increase your limits, request a quota increase"}}',
            ErrorClass.RATE_LIMITED,
        ),
        (
            1,
            '{"type":"result","status":"error","error":{"message":"[API Error: terminated]"}}',
            ErrorClass.TRANSIENT,
        ),
        (
            0,
            '{"type":"error","severity":"error","message":"The model returned an empty response '
            'with no text or thoughts."}\n{"type":"result","status":"error","stats":{}}',
            ErrorClass.REFUSED,
        ),
    ],
)
def test_gemini_says_why_only_by_its_exit_code_or_its_text(exit_code, line, expected):
    assert Run(exit_code, line.splitlines(), []).answer("gemini").error_class == expected


def test_gemini_calls_the_end_of_a_loop_a_success_and_it_is_none():
    lines = [
        '{"type":"error","severity":"warning","message":"Loop detected, stopping execution"}',
        '{"type":"result","status":"success","stats":{}}',
    ]

    answer = Run(0, lines, []).answer("gemini")

    assert answer.error_class == ErrorClass.MAX_TURNS
    assert answer.message == "Loop detected, stopping execution"


def test_a_run_that_was_ended_after_its_last_turn_says_so_unless_it_was_done():
    lines = recorded("gemini-62-killpg-SIGTERM-bash").stdout

    ended = Run(-15, lines, []).answer("gemini", ended_by="max_turns", max_turns=1)
    done = recorded("gemini-05-yolo-bash").answer("gemini", ended_by="max_turns", max_turns=1)

    assert (ended.error_class, ended.turns) == (ErrorClass.MAX_TURNS, 1)
    assert (done.status, done.turns) == (Status.OK, 2)


def test_what_relayq_did_outweighs_what_the_agent_says():
    cancelled = recorded("claude-03-streamjson").answer("claude", ended_by="cancel")
    timed_out = recorded("claude-80-SIGTERM-slow-stream").answer("claude", ended_by="time_limit")
    stalled = recorded("claude-80-SIGTERM-slow-stream").answer("claude", ended_by="stall")

    assert cancelled.status == Status.CANCELLED
    assert timed_out.status == Status.TIMED_OUT
    assert stalled.error_class == ErrorClass.STALLED


def test_an_agent_that_had_its_last_word_and_did_not_go_is_judged_by_that_word():
    answer = recorded("claude-03-streamjson").answer("claude", ended_by="lingered")

    assert answer.status == Status.OK


def test_a_success_brings_its_text_session_cost_and_tokens():
    answer = recorded("claude-108-tool-stream").answer("claude", host="mini", account="home")

    assert answer.text == "MOCK ANSWER (messages=4, tool_results=1)."
    assert answer.session_id == "c04a03ee-2dad-466f-8c84-6a0937b5e339"
    assert (answer.turns, answer.cost_usd) == (2, 0.002645)
    assert answer.usage == Usage(input=200, output=60, cache_read=40, cache_write=20)
    assert (answer.model, answer.agent_version) == ("claude-opus-4-8[1m]", "2.1.197")
    assert (answer.account, answer.host, answer.tool_failures) == ("claude/home", "mini", 0)


def test_gemini_brings_the_same():
    answer = recorded("gemini-05-yolo-bash").answer("gemini")

    assert answer.text == "MOCK GEMINI ANSWER contents=3"
    assert answer.session_id == "bf5d8ec8-0a1f-4957-a874-d6a1b73a7062"
    assert answer.usage == Usage(input=270, output=60, cache_read=30)
    assert answer.model == "mock"


def test_a_usage_limit_has_the_instant_of_its_reset():
    assert recorded("claude-50-sublimit-oauth-stream").answer("claude").resets_at == 1_795_225_576
    assert recorded("gemini-26-429-ra3600").answer("gemini").resets_at == NOW + 3600
    assert recorded("gemini-12-429-day").answer("gemini").resets_at is None
    codex = recorded("codex-16-usage-limit").answer("codex")
    assert codex.resets_at is not None
    assert NOW - 600 <= codex.resets_at <= NOW + 86_400


def test_a_warning_of_a_limit_is_no_failure_and_is_kept():
    run = recorded("claude-53-warn-oauth-stream")

    assert run.answer("claude").status == Status.OK
    assert run.summary.warned is not None
    assert run.summary.warned.utilization == 0.93


def test_denied_tools_are_listed_with_what_would_allow_them():
    claude = recorded("claude-10-bash-default-perm").answer("claude").denials
    gemini = recorded("gemini-06-default-bash").answer("gemini").denials

    assert [(denial.tool, denial.allow) for denial in claude] == [("Bash", "Bash")]
    assert claude[0].input.startswith("echo hello-from-agent")
    assert [denial.tool for denial in gemini] == ["run_shell_command"]


def test_an_answer_in_the_form_that_was_asked_for_is_a_value():
    asked = {"schema": {"type": "object"}}

    assert recorded("claude-59-jsonschema").answer("claude", **asked).structured == {
        "name": "x",
        "score": 7,
    }
    # Text that happens to be JSON wasn't checked by claude, so it is none.
    plain = recorded("claude-60-jsonschema-plainreply").answer("claude", **asked)
    assert (plain.error_class, plain.structured) == (ErrorClass.NEEDS_REVIEW, None)
    # codex has no other place for it than its last message.
    assert recorded("codex-03-json").answer("codex", **asked).status == Status.NEEDS_HUMAN


def test_a_new_session_instead_of_the_one_that_was_asked_for_is_no_success():
    answer = recorded("codex-45-resume-badname").answer("codex", session="nosuchname")

    assert answer.error_class == ErrorClass.SESSION_NOT_FOUND
    assert answer.is_context_lost


def test_an_agent_that_names_no_session_goes_on_in_the_one_that_was_asked_for():
    answer = Run(0, ['{"type":"text","text":"hi"}'], []).answer("opencode", session="s")

    assert (answer.status, answer.text, answer.session_id) == (Status.OK, "hi", None)


def test_a_wait_that_says_nothing_of_its_cause_is_a_broken_connection():
    line = '{"type":"system","subtype":"api_retry","attempt":1,"retry_delay_ms":500}'

    answer = Run(-15, [line], []).answer("claude", ended_by="throttle")

    assert answer.error_class == ErrorClass.TRANSIENT


def test_of_two_last_words_the_later_one_counts():
    success = '{"type":"result","subtype":"success","is_error":false,"result":"one"}'
    lines = [success, success.replace("one", "two")]

    assert Run(0, lines, []).answer("claude").text == "two"


def test_a_fork_says_where_it_came_from():
    old = "2b92a0ab-7612-4854-8440-43f75b01c362"
    answer = recorded("claude-63-resume-fork").answer("claude", session=old, fork=True)

    assert answer.status == Status.OK
    assert answer.forked_from == old
    assert answer.session_id == "ccef33ba-613d-4ea3-ae26-432b3cdd2129"


def test_codex_counts_the_whole_session_so_what_was_before_is_subtracted():
    thread = "01a1fb95-8f84-7673-b566-a8d4e1e7c787"
    before = Usage(input=100, output=30, cache_read=20)

    resumed = recorded("codex-41-resume").answer("codex", session=thread, usage_before=before)
    unknown = recorded("codex-41-resume").answer("codex", session=thread)

    assert resumed.usage_total == Usage(input=200, output=60, cache_read=40)
    assert resumed.usage == Usage(input=100, output=30, cache_read=20)
    assert unknown.usage == Usage()


@pytest.mark.parametrize("name", ENDS)
def test_no_line_of_a_transcript_can_move_a_cursor(name):
    parser, transcript = parser_named(AGENTS[name.partition("-")[0]].parser), render.Transcript()
    run = recorded(name)

    lines = [
        shown for line in run.stdout for e in parser.feed(line) for shown in transcript.lines(e)
    ]

    assert all(line.isprintable() for line in [*lines, *transcript.rest()])
