"""Findings: what agents answer, what it cites, and what is the same."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.model.findings import (
    SCHEMA,
    Answer,
    Issue,
    Severity,
    by_file,
    cache_key,
    check,
    from_cache,
    merge,
)
from relayq.model.prompts import DEFAULT
from relayq.model.sessionanswers import MOST, read
from relayq.model.shards import Shard, SourceFile

SHARD = Shard("auth", tuple(SourceFile(f"auth/{n}.py", 100) for n in ("login", "tokens", "views")))
TEXTS = {
    "auth/login.py": ["import os", "", "def login(user):", "    return run(user)", ""],
    "auth/tokens.py": [f"line number {n}" for n in range(1, 101)] + [""],
    "auth/views.py": ["def a():", "    pass", "def b():", "    pass", ""],
}
KNOWN = [*TEXTS, "api/views.py", "setup.py"]
WHOLE = {
    "file": "auth/login.py",
    "line": 4,
    "end_line": None,
    "severity": "high",
    "category": "security",
    "title": "Runs what the user typed",
    "detail": "No check.",
    "code": "return run(user)",
    "suggestion": "Check it.",
    "confidence": 0.9,
}
FOUND = Issue(
    file="auth/login.py",
    line=4,
    severity=Severity.HIGH,
    title="Runs what the user typed",
    category="security",
    detail="No check.",
    suggestion="Check it.",
    code="return run(user)",
    confidence=0.9,
    shards=("auth",),
)


def issue(file="auth/login.py", line=1, title="x", severity="high", **more) -> Issue:
    return Issue(file, line, Severity(severity), title, **more)


def checked(*issues: Issue, **more) -> tuple[Issue, ...]:
    return check(Answer("auth", issues, SHARD.paths), SHARD, TEXTS.get, KNOWN, **more).issues


def answer_of(*rows, **more) -> str:
    return json.dumps({"issues": list(rows), **more})


@pytest.mark.parametrize(
    "text",
    [
        answer_of(WHOLE),
        f"I looked at the files [1] and {{this}}.\n```json\n{answer_of(WHOLE)}\n```\nThat is all.",
        f"Here it is: {answer_of(WHOLE)} Anything else?",
        f'I was asked for {{"issues": [{{"title": "one line"}}]}}. So:\n{answer_of(WHOLE)}',
        json.dumps([WHOLE]),
        json.dumps({"findings": [WHOLE]}),
        json.dumps({"result": {"vulnerabilities": [WHOLE]}}),
        json.dumps({"issues": {"auth/login.py": [{**WHOLE, "file": None}]}}),
    ],
)
def test_an_answer_is_read_however_it_is_wrapped(text):
    assert read(None, text, SHARD) == Answer("auth", (FOUND,), SHARD.paths)


def test_what_was_given_by_the_schema_counts_more_than_the_text():
    structured = {"issues": [WHOLE], "files_analyzed": ["auth/login.py"]}

    answer = read(structured, answer_of({"title": "other"}), SHARD)

    assert answer == Answer("auth", (FOUND,), ("auth/login.py",))


def test_an_answer_by_a_schema_of_ones_own_needs_no_findings():
    assert read({"summary": "fine"}, "", SHARD) == Answer("auth", (), SHARD.paths)


@pytest.mark.parametrize("text", ["[]", '{"issues": []}', "Nothing.\n```json\n[]\n```"])
def test_no_findings_are_an_answer(text):
    assert read(None, text, SHARD) == Answer("auth", (), SHARD.paths)


def test_fields_are_read_by_the_names_that_agents_give_them():
    row = {
        "path": "auth/login.py:4-6",
        "level": "WARNING",
        "type": "Bug",
        "message": "Odd\n  thing",
        "description": ["why", "how"],
        "fix": "so",
        "confidence": 80,
    }

    [found] = read(None, answer_of(row), SHARD).issues

    assert found == Issue(
        file="auth/login.py",
        line=4,
        end_line=6,
        severity=Severity.MEDIUM,
        title="Odd thing",
        category="bug",
        detail="why\nhow",
        suggestion="so",
        confidence=0.8,
        shards=("auth",),
    )


@pytest.mark.parametrize(
    ("line", "end_line", "expected"),
    [
        ("12", None, (12, None)),
        ("12-15", None, (12, 15)),
        ("L12–L15", None, (12, 15)),
        ([12, 15], None, (12, 15)),
        (12.0, 15, (12, 15)),
        (0, None, (None, None)),
        (-3, 4, (None, 4)),
        (True, None, (None, None)),
        (1e300, None, (None, None)),
        ("somewhere", None, (None, None)),
        ({"a": 1}, None, (None, None)),
    ],
)
def test_a_line_is_read_in_every_form(line, end_line, expected):
    row = {"file": "auth/login.py", "line": line, "end_line": end_line, "title": "x"}

    [found] = read(None, answer_of(row), SHARD).issues

    assert (found.line, found.end_line) == expected


def test_of_an_answer_that_is_cut_off_the_whole_findings_are_saved():
    text = answer_of(WHOLE, {**WHOLE, "title": "Second"}, {**WHOLE, "title": "Third"})

    answer = read(None, text[: text.index("Third")], SHARD)

    assert [one.title for one in answer.issues] == ["Runs what the user typed", "Second"]
    assert answer.problem == "its JSON can't be read as a whole; 2 findings could be saved"
    assert not answer.analysed


def test_of_prose_the_lines_are_kept_that_name_a_file():
    text = (
        "I found these:\n"
        "- **High**: SQL injection vulnerability in auth/login.py:12 by user input\n"
        "- tokens.py has a race, line unknown\n"
        "- the other file is fine\n"
    )

    answer = read(None, text, SHARD)

    assert [(one.file, one.line, one.severity.value) for one in answer.issues] == [
        ("auth/login.py", 12, "high"),
        ("auth/tokens.py", None, "medium"),
    ]
    assert answer.problem == (
        "its answer has no findings in JSON; 2 findings were picked out of its text"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it answered nothing"),
        ("All good, I'd say [] of course.", "its answer has no findings in JSON"),
        ('{"hello": "world"}', "its answer has no findings in JSON"),
        ("{" * 50_000 + "[" * 50_000, "its answer has no findings in JSON"),
    ],
)
def test_nonsense_is_a_problem_and_no_error(text, problem):
    assert read(None, text, SHARD) == Answer("auth", (), (), problem)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["issues", "file", "line", "title", "severity", "code", "end_line"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.text(max_size=60))
def test_whatever_an_agent_answers_is_read_checked_and_kept(value, text):
    for answer in (read(value, text, SHARD), read(None, text + json.dumps(value), SHARD)):
        looked_up = check(answer, SHARD, TEXTS.get, KNOWN)
        merged = merge([looked_up, looked_up])

        assert len(merged) <= len(looked_up.issues)
        for one in merged:
            assert Issue.from_dict(json.loads(json.dumps(one.as_dict()))) == one
            assert one.doubt or one.file in TEXTS
            assert one.doubt or one.line is None or 1 <= one.line <= len(TEXTS[one.file]) - 1


def test_more_findings_than_anybody_reads_are_cut_and_said():
    answer = read({"issues": [WHOLE] * (MOST + 5)}, "", SHARD)

    assert len(answer.issues) == MOST
    assert answer.problem == "it reported 1005 findings, of which 1000 are kept"


def test_what_would_harm_a_terminal_is_taken_out():
    row = {**WHOLE, "title": "a\x1b[2Jb\u202ec\ud800", "detail": "x" * 9000}

    [found] = read({"issues": [row]}, "", SHARD).issues

    assert found.title == "a[2Jbc?"
    assert len(found.detail) == 8000


@pytest.mark.parametrize(
    "said",
    [
        "auth/login.py",
        "./auth/login.py",
        "auth\\login.py",
        ".\\auth\\login.py",
        "C:\\work\\shop\\auth\\login.py",
        "/home/worker/scratch/7c19/auth/login.py",
        "file:///srv/auth/login.py",
        "shop/auth/login.py",
        "auth/../auth//login.py",
        "a/auth/login.py",
        "Auth/Login.py",
        "login.py",
        " `auth/login.py` ",
    ],
)
def test_a_file_is_found_however_its_path_is_written(said):
    [found] = checked(issue(file=said))

    assert (found.file, found.doubt) == ("auth/login.py", "")


@pytest.mark.parametrize(
    ("said", "file", "doubt"),
    [
        ("api/views.py", "api/views.py", "it cites a file that this session wasn't given"),
        (
            "/srv/7c19/api/views.py",
            "api/views.py",
            "it cites a file that this session wasn't given",
        ),
        ("auth/missing.py", "auth/missing.py", "there is no file auth/missing.py"),
        ("../../etc/passwd", "../../etc/passwd", "there is no file ../../etc/passwd"),
        ("web/setup.py", "web/setup.py", "there is no file web/setup.py"),
        ("", "", "it cites no file"),
        (".", "", "it cites no file"),
    ],
)
def test_a_file_that_the_session_did_not_have_is_a_doubt(said, file, doubt):
    [found] = checked(issue(file=said))

    assert (found.file, found.doubt) == (file, doubt)


def test_a_name_that_several_files_have_is_a_doubt():
    shard = Shard("s", (SourceFile("a/x.py", 1), SourceFile("b/x.py", 1)))

    answer = check(Answer("s", (issue(file="x.py"),), shard.paths), shard, TEXTS.get)

    assert answer.issues[0].doubt == "it may mean any of 2 files"


def test_an_absolute_path_is_one_of_the_sessions_directory():
    shard = Shard("s", (SourceFile("x.py", 1),))
    answer = Answer("s", (issue(file="/scratch/7/x.py"), issue(file="/usr/lib/x.py")), ("x.py",))

    found = check(answer, shard, {"x.py": ["1", ""]}.get, cwd="/scratch/7").issues

    assert [one.doubt for one in found] == ["", "there is no file /usr/lib/x.py"]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"line": 4}, (4, None, "")),
        ({"line": 100}, (100, None, "")),
        ({"line": 101}, (101, None, "it cites line 101 of 100")),
        ({"line": 98, "end_line": 120}, (98, 100, "")),
        ({"line": 9, "end_line": 4}, (9, None, "")),
        ({"line": None, "end_line": 4}, (None, None, "")),
        ({"line": 30, "code": "line number 33"}, (33, None, "")),
        ({"line": 30, "end_line": 35, "code": "line number 33"}, (33, 38, "")),
        ({"line": 300, "code": "line   number 33\nline number 34"}, (33, None, "")),
        ({"line": None, "code": "33: line number 33"}, (33, None, "")),
        ({"line": 33, "code": "line number ... 33"}, (33, None, "")),
        ({"line": 7, "code": "def f():"}, (7, None, "the code that it quotes isn't in the file")),
        ({"line": 7, "code": "}"}, (7, None, "")),
    ],
)
def test_a_line_is_looked_up_in_the_file(given_, expected):
    [found] = checked(issue(file="auth/tokens.py", **given_))

    assert (found.line, found.end_line, found.doubt) == expected


def test_without_its_text_a_line_has_to_be_within_the_file():
    shard = Shard("s", (SourceFile("a.py", 90, lines=9),))
    found = (issue(file="a.py", line=9, code="anything at all"), issue(file="a.py", line=10))

    answer = check(Answer("s", found, shard.paths), shard, None)

    assert [one.doubt for one in answer.issues] == ["", "it cites line 10 of 9"]


def test_a_file_that_is_gone_is_a_doubt():
    answer = check(Answer("auth", (issue(),), SHARD.paths), SHARD, lambda path: None)

    assert answer.issues[0].doubt == "the file can't be read any more"


def test_the_files_that_a_session_read_are_those_of_its_shard():
    said = ("./auth/login.py", "auth/login.py", "setup.py", "/x/auth/tokens.py")

    answer = check(Answer("auth", (), said), SHARD, TEXTS.get, KNOWN)

    assert answer.analysed == ("auth/login.py", "auth/tokens.py")
    assert not answer.problem
    none = check(read({"issues": [], "files_analyzed": []}, "", SHARD), SHARD, TEXTS.get)
    assert none.problem == "it says that it read none of its files"


def test_the_same_finding_is_kept_once():
    first = Answer(
        "a",
        (
            issue(line=10, title="SQL injection in login query", severity="medium"),
            issue(line=10, title="Password is logged"),
            issue(line=30, title="SQL injection in login query"),
            issue(line=None, title="No tests for the login"),
        ),
    )
    second = Answer(
        "b",
        (
            issue(
                line=11, title="SQL injection in the login query.", shards=("b",), confidence=0.9
            ),
            issue(file="auth/views.py", line=10, title="SQL injection in login query"),
            issue(line=3, title="no tests for login", severity="low"),
        ),
    )

    merged = merge([first, second])

    assert [(one.place, one.severity.value, one.title) for one in merged] == [
        ("auth/login.py:3", "high", "No tests for the login"),
        ("auth/login.py:10", "high", "Password is logged"),
        ("auth/login.py:11", "high", "SQL injection in the login query."),
        ("auth/login.py:30", "high", "SQL injection in login query"),
        ("auth/views.py:10", "high", "SQL injection in login query"),
    ]


def test_of_two_the_one_that_was_found_in_the_file_is_kept():
    sure = issue(line=4, title="Bad query here", severity="low", shards=("a",))
    doubtful = issue(line=5, title="Bad query here", severity="critical", doubt="no")

    [kept] = merge([Answer("a", (doubtful,)), Answer("b", (sure,))])

    assert kept == sure


def test_findings_are_sorted_by_file_severity_and_line():
    found = [
        issue(line=9, title="nine", severity="low"),
        issue(line=5, title="five", severity="critical"),
        issue(file="api/x.py", line=7, title="seven", severity="info"),
        issue(line=1, title="one", severity="critical"),
    ]

    titles = [one.title for one in merge([Answer("a", tuple(found))])]

    assert titles == ["seven", "one", "five", "nine"]


ISSUES = st.builds(
    issue,
    file=st.sampled_from(["a.py", "b.py"]),
    line=st.none() | st.integers(1, 6),
    title=st.sampled_from(["bad query", "bad query here", "slow loop", ""]),
    severity=st.sampled_from([one.value for one in Severity]),
    category=st.sampled_from(["", "bug", "security"]),
    doubt=st.sampled_from(["", "", "no such line"]),
)


@given(st.lists(ISSUES, max_size=8), st.integers(0, 2**32))
def test_the_order_of_the_answers_changes_nothing(issues, seed):
    once = merge([Answer("s", tuple(issues))])

    shuffled = list(issues)
    random.Random(seed).shuffle(shuffled)

    assert merge([Answer("s", (one,)) for one in shuffled]) == once
    assert {one.file for one in once} == {one.file for one in issues}


def test_a_fingerprint_stays_when_lines_move():
    assert issue(line=4).fingerprint == issue(line=9, severity="low").fingerprint
    assert issue(title="the bad query").fingerprint == issue(title="Bad query!").fingerprint
    assert issue(title="bad query").fingerprint != issue(title="slow query").fingerprint


def test_what_a_session_found_is_kept_by_file():
    found = issue(line=4)
    answer = Answer(
        "auth",
        (found, issue(line=9, doubt="no"), issue(file="setup.py")),
        ("auth/login.py", "auth/views.py"),
    )

    kept = by_file(answer)

    assert kept == {"auth/login.py": [found], "auth/views.py": []}
    assert from_cache(kept) == Answer("", (found,), ("auth/login.py", "auth/views.py"))


def test_another_content_question_or_model_is_another_key():
    asked = {"template": DEFAULT, "schema": SCHEMA, "agent": "claude", "model": None}
    keys = {
        cache_key("a.py", "00", **asked),
        cache_key("b.py", "00", **asked),
        cache_key("a.py", "01", **asked),
        cache_key("a.py", "00", **{**asked, "template": "x"}),
        cache_key("a.py", "00", **{**asked, "schema": None}),
        cache_key("a.py", "00", **{**asked, "agent": "codex"}),
        cache_key("a.py", "00", **{**asked, "model": "opus"}),
    }

    assert len(keys) == 7
    assert cache_key("a.py", "00", **asked) in keys


def test_the_schema_is_strict_enough_for_every_service():
    def objects(schema):
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield schema
            for inner in schema.values():
                yield from objects(inner)

    found = list(objects(SCHEMA))

    assert len(found) == 2
    for one in found:
        assert one["additionalProperties"] is False
        assert sorted(one["required"]) == sorted(one["properties"])
