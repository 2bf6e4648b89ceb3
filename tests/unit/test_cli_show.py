"""What the command line shows: pure rendering."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from relayq.cli import COMMANDS, details, logs, options, show, tables, texts
from relayq.model.jobs import JobRecord, JobState, Outcome, Spec
from relayq.model.output import STDERR, STDOUT, Frame

SPEC = Spec("3f2a00000000", "run_command", {"cmd": "make nightly"}, name="nightly", timeout=18_000)
QUEUED = JobRecord(
    SPEC.id, SPEC.kind, JobState.QUEUED, "host.pi4", priority=5, created_at=1000.0, spec=SPEC
)
FAILED = replace(
    QUEUED,
    state=JobState.FAILED,
    attempt=1,
    host="pi4",
    reason="exit",
    exit_code=3,
    claimed_at=1001.0,
    started_at=1001.0,
    finished_at=1003.5,
)
OUTCOME = Outcome(SPEC.id, 1, "u", "pi4", JobState.FAILED, "exit", exit_code=3, run_time=0.24)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]text[/bold]", "plain [bold]text[/bold]"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m", "?red?"),
        ("\x1b]0;a title\x07end", "?end"),
        ("\x1b]8;;http://x\x1b\\link", "?link"),
        ("\x9b2Jbell\x07 back\x08 null\0", "?bell? back? null?"),
        ("\u202ebidi", "?bidi"),
        ("a lone \udcff byte", "a lone ? byte"),
        ("\x1b", "?"),
        ("日本語 é", "日本語 é"),
    ],
)
def test_a_jobs_text_cant_move_the_cursor(text, shown):
    assert texts.inert(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (7200, "2h"),
        (200_000, "2d"),
    ],
)
def test_an_age_has_one_unit(seconds, shown):
    assert texts.age(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0s"),
        (0.24, "0.2s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (231, "3m51s"),
        (7440, "2h04m"),
        (93_600, "1d02h"),
    ],
)
def test_a_span_has_two_units(seconds, shown):
    assert texts.span(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(18_000, "5h"), (90, "90s"), (0.5, "0.5s")])
def test_a_limit_reads_as_it_was_typed(seconds, shown):
    assert texts.limit(seconds) == shown


def test_an_id_is_shown_as_short_as_it_is_unique():
    short = texts.short_ids(["3f2a00000000", "3f2a01000000", "3f2b00000000", "c07d00000000"])

    assert short == {
        "3f2a00000000": "3f2a00",
        "3f2a01000000": "3f2a01",
        "3f2b00000000": "3f2b",
        "c07d00000000": "c07d",
    }


def test_one_id_is_shown_with_four_characters():
    assert texts.short_ids(["3f2a00000000", "3f2a00000000"]) == {"3f2a00000000": "3f2a"}


def plain(columns: list[str], rows: list[list[str]], width: int | None) -> list[str]:
    return [click.unstyle(line) for line in tables.laid_out(columns, rows, width)]


def test_a_plain_table_is_aligned_by_what_a_terminal_shows():
    mark = tables.ellipsis()

    lines = plain(["A", "B"], [["日本", "x"], ["a", "y" * 70]], None)

    assert lines == ["A     B", "日本  x", "a     " + "y" * (60 - len(mark)) + mark]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_line_of_a_table_is_wider_than_the_terminal(width):
    long = replace(QUEUED, spec=replace(SPEC, payload={"cmd": "日本 " * 200}))
    rows = show.job_rows([long, replace(FAILED, id="c07d00000000")], now=1060.0)

    lines = plain(list(show.JOB_COLUMNS), rows, width)

    assert max(map(tables.width_of, lines)) <= width
    assert lines[1].startswith("3f2a  queued")
    assert ("WHAT" in lines[0]) == (width >= 20)


def test_a_table_has_the_colours_of_the_states_and_none_of_the_jobs():
    rows = [["failed", "\x1b[32mgreen\x1b[0m"]]

    [_, line] = tables.laid_out(["STATE", "WHAT"], rows, 80)

    assert line == click.style("failed", fg="red") + "  ?green?"


def test_a_row_says_where_a_job_is_meant_to_run_and_why_it_failed():
    rows = show.job_rows([QUEUED, replace(FAILED, id="c07d00000000")], now=1060.0)

    what = "nightly: make nightly"
    assert rows == [
        ["3f2a", "queued", "->pi4", "run_command", what, "1m", "-", ""],
        ["c07d", "failed", "pi4", "run_command", what, "1m", "2.5s", "exit 3"],
    ]


def test_the_last_line_counts_what_isnt_in_the_table():
    counts = dict.fromkeys(JobState, 0) | {JobState.QUEUED: 30, JobState.FAILED: 7}

    assert show.job_counts(counts, {JobState.QUEUED: 20}) == [
        *("0 active", "30 queued", "7 failed"),
        "10 more not shown (relayq ps -a)",
    ]


def test_the_last_line_counts_whatever_is_still_to_come():
    counts = dict.fromkeys(JobState, 1)

    assert show.job_counts(counts, counts) == [
        *("1 active", "1 lost", "1 queued", "1 scheduled", "1 waiting"),
        *("1 needs_human", "1 failed"),
    ]


def test_an_end_without_success_is_one_line():
    cancelled = replace(FAILED, state=JobState.CANCELLED, reason="user")

    assert show.verdict(FAILED, OUTCOME) == "3f2a00000000  failed: exit 3 after 0.2s on pi4"
    assert show.verdict(cancelled, None) == "3f2a00000000  cancelled on pi4"
    assert show.verdict(replace(FAILED, state=JobState.SUCCEEDED), OUTCOME) is None


def test_details_keep_the_lines_of_a_command_and_hide_the_values_of_its_variables():
    payload = {"cmd": "one\n\x1b[2Jtwo", "env": {"TOKEN": "secret"}}
    failed = replace(FAILED, spec=replace(SPEC, payload=payload))
    lines = details.job_details(failed, OUTCOME, 1060.0)

    assert "  Command   one" in lines
    assert "            ?two" in lines
    assert "  Env       TOKEN" in lines
    assert "  Failed    exit 3" in lines
    assert "secret" not in "\n".join(lines)
    assert lines[-1] == "  Next      relayq logs 3f2a00000000 | relayq retry 3f2a00000000"


def test_a_program_with_arguments_is_shown_as_it_would_be_typed():
    payload = {"cmd": ["echo", "two words", "$HOME"]}

    assert show.command_of(replace(SPEC, payload=payload)) == "echo 'two words' '$HOME'"


def test_json_has_instants_in_utc():
    shown = show.as_json(FAILED)

    assert shown["created_at"] == "1970-01-01T00:16:40.000Z"
    assert shown["due_at"] is None
    assert shown["duration"] == 2.5
    assert shown["state"] == "failed"
    assert shown["spec"]["payload"] == {"cmd": "make nightly"}


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        (0, []),
        (1, [(STDOUT, b"4\n")]),
        (2, [(STDERR, b"3\n"), (STDOUT, b"4\n")]),
        (3, [(STDOUT, b"2\n"), (STDERR, b"3\n"), (STDOUT, b"4\n")]),
        (9, [(STDOUT, b"1\n2\n"), (STDERR, b"3\n"), (STDOUT, b"4\n")]),
    ],
)
def test_the_last_lines_are_counted_over_both_channels(count, kept):
    written = [(STDOUT, b"1\n2\n"), (STDERR, b"3\n"), (STDOUT, b"4\n")]
    frames = [Frame(channel, 0.0, data) for channel, data in written]

    assert [(f.channel, f.data) for f in logs.last_lines(frames, count)] == kept


def test_a_last_line_without_an_end_is_a_line():
    assert logs.last_lines([Frame(STDOUT, 0.0, b"1\n2")], 1) == [Frame(STDOUT, 0.0, b"2")]
    assert logs.last_lines([Frame(STDOUT, 0.0, b"1\n2")], 2) == [Frame(STDOUT, 0.0, b"1\n2")]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@10.0.0.5:6379/0", "10.0.0.5:6379"),
        ("rediss://user:secret@host:1/3", "rediss://host:1/3"),
        ("sentinel://:a@one:1;sentinel://:a@two:2", "sentinel://one:1;sentinel://two:2"),
        ("sentinel://one:1;sentinel://two:2/0?master=x", "sentinel://one:1;sentinel://two:2"),
        ("rediss://:a@host:1/0?ssl_cert_reqs=required&ssl_ca_certs=/a/b", "rediss://host:1"),
        ("redis://host", "host"),
    ],
)
def test_a_brokers_address_has_no_secret(url, shown):
    assert options.address(url) == shown


def test_every_field_of_a_job_is_documented_for_json():
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text("utf-8")
    shown = show.as_json(FAILED)

    fields = [*shown, *shown["spec"]]

    assert not [field for field in fields if f"`{field}`" not in page]


def test_every_command_is_documented_for_json():
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text("utf-8")

    assert not [name for name in COMMANDS if not re.search(rf"`{name}[` ]", page)]


NOON = datetime(2026, 3, 4, 12, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("22:30", datetime(2026, 3, 4, 22, 30)),
        ("9:05", datetime(2026, 3, 5, 9, 5)),
        ("12:00", datetime(2026, 3, 5, 12, 0)),
        ("2026-11-22 08:00", datetime(2026, 11, 22, 8)),
        ("2026-11-22", datetime(2026, 11, 22)),
        ("2026-11-22T08:00:00Z", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("2026-11-22T08:00:00+02:00", datetime(2026, 11, 22, 6, tzinfo=UTC)),
    ],
)
def test_an_instant_is_local_unless_it_says_otherwise(text, meant):
    assert texts.instant_of(text, NOON) == meant.timestamp()


@pytest.mark.parametrize("text", ["", "noon", "24:61", "2026-03-04 11:59", "12", "-1"])
def test_an_instant_that_isnt_one_or_has_passed(text):
    with pytest.raises(ValueError, match="expected"):
        texts.instant_of(text, NOON)


def test_a_job_that_never_ran_says_why():
    upstream = replace(FAILED, reason="upstream", exit_code=None, attempt=0, host=None)

    assert show.verdict(upstream, None) == (
        "3f2a00000000  failed: a job that it comes after failed"
    )
    assert show.verdict(replace(FAILED, exit_code=127), OUTCOME) == (
        "3f2a00000000  failed: exit 127 (command not found) after 0.2s on pi4"
    )


AGENTS = replace(
    QUEUED,
    kind="run_agent",
    spec=replace(
        SPEC,
        kind="run_agent",
        payload={"agent": "claude", "prompt": "fix it", "permission": "read_only", "max_turns": 3},
        accounts=("claude/default", "codex/default"),
    ),
)


def test_an_agents_job_shows_its_prompt_its_agent_and_what_it_may_do():
    lines = details.plan(AGENTS.spec)

    assert show.kind_of(AGENTS) == "agent/claude"
    assert any(line.split() == ["Prompt", "fix", "it"] for line in lines)
    assert "claude, permission read_only, turns 3, or codex/default" in "\n".join(lines)


def test_the_agent_that_took_over_is_the_one_that_is_shown():
    assert show.kind_of(replace(AGENTS, account="codex/default")) == "agent/codex"


def test_a_question_is_shown_with_its_numbered_choices():
    asking = replace(
        AGENTS,
        state=JobState.NEEDS_HUMAN,
        question="allow it?",
        choices=("yes", "no"),
        cost_usd=0.0042,
        tokens_in=1200,
        finished_at=1003.0,
    )

    text = "\n".join(details.job_details(asking, None, 2000.0))

    assert "Question  allow it?" in text
    assert "2 no" in text
    assert "1,200 tokens, $0.0042" in text
    assert f"relayq answer {asking.id}" in text


@pytest.mark.parametrize(
    ("amount", "shown"), [(0.0, "$0.00"), (0.0042, "$0.0042"), (0.5, "$0.50"), (12.345, "$12.35")]
)
def test_small_amounts_are_not_rounded_to_nothing(amount, shown):
    assert texts.dollars(amount) == shown
