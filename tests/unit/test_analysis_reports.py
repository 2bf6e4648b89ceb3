"""Reports of an analysis."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from urllib.parse import unquote

import pytest

from relayq.model.findings import Issue, Severity
from relayq.model.reports import (
    Run,
    ShardRun,
    as_json,
    as_markdown,
    as_text,
    comparison,
    sessions,
    summary,
)
from relayq.model.sarif import as_sarif

ISSUES = (
    Issue(
        file="auth/login form.py",
        line=4,
        end_line=6,
        severity=Severity.CRITICAL,
        title="Runs what [the user](x) typed",
        category="Security",
        detail="No check.\n<b>At all</b>",
        suggestion="Check it.",
        confidence=0.9,
        shards=("auth",),
    ),
    Issue("auth/login form.py", 9, Severity.LOW, "Long | function", category="code quality"),
    Issue("auth/login form.py", 19, Severity.LOW, "Long | function", category="code quality"),
    Issue("web/x.py", None, Severity.MEDIUM, "No tests", shards=("web",)),
    Issue("web/x.py", 300, Severity.HIGH, "Guess", doubt="it cites line 300 of 12"),
)
RUN = Run(
    id="r41",
    root="/src/large codebase",
    files=30,
    by="dir",
    agent="claude",
    model=None,
    workers=5,
    started_at=1_800_000_000.25,
    ended_at=1_800_000_052.25,
    shards=(
        ShardRun(
            *("auth", 12, "succeeded", "mac-mini", "7c19", "0b5c"),
            analysed=12,
            issues=3,
            duration=41.2,
            cost_usd=0.06,
        ),
        ShardRun(
            "web", 10, "failed", "pi4", analysed=0, duration=60, cost_usd=None, why="timed out"
        ),
    ),
    issues=ISSUES,
    commit="0123456789abcdef0123456789abcdef01234567",
    is_dirty=True,
    cached_files=8,
    left_out={"not source code": 4, "binary": 1},
    version="0.1.0",
)
DONE = replace(
    RUN,
    shards=tuple(
        replace(one, state="succeeded", analysed=one.files, why="", session=f"s-{one.name}")
        for one in RUN.shards
    ),
)


def test_a_run_is_complete_when_every_file_was_read():
    part = replace(DONE, shards=(replace(DONE.shards[0], analysed=11), DONE.shards[1]))
    parked = replace(RUN, shards=(replace(RUN.shards[0], state="queued"), RUN.shards[1]))
    going = replace(parked, ended_at=None)
    none = replace(RUN, cached_files=0, shards=RUN.shards[1:])
    cached = replace(RUN, cached_files=30, shards=())

    found = [(one.state, one.exit_code) for one in (DONE, RUN, part, parked, going, none, cached)]

    assert found == [
        ("complete", 0),
        ("incomplete", 80),
        ("incomplete", 80),
        ("incomplete", 80),
        ("running", 80),
        ("failed", 1),
        ("complete", 0),
    ]


def test_the_summary_says_what_is_missing_and_what_it_took():
    assert summary(RUN) == [
        "Analysis incomplete: 1 of 2 shards, 20 of 30 files, 4 issues (1 critical), 1 in doubt",
        "  web: failed, timed out",
        "Time 52s (sum of sessions 1m41s)  cost $0.06  sessions 1"
        "  8 files unchanged since an earlier analysis",
    ]
    part = replace(DONE, shards=(replace(DONE.shards[0], analysed=11), DONE.shards[1]))
    assert summary(part)[1] == "  auth: succeeded, 11 of 12 files read"
    free = replace(DONE, shards=(), cached_files=30, ended_at=None)
    assert summary(free)[-1] == (
        "cost unknown  sessions 0  30 files unchanged since an earlier analysis"
    )


def test_the_text_has_the_findings_by_file():
    assert as_text(RUN).splitlines()[:10] == [
        "auth/login form.py",
        "      4  critical  Runs what [the user](x) typed  [Security]",
        "      9  low       Long | function  [code quality]",
        "     19  low       Long | function  [code quality]",
        "",
        "web/x.py",
        "         medium    No tests",
        "",
        "In doubt, since what they cite isn't there:",
        "  web/x.py:300: Guess (it cites line 300 of 12)",
    ]
    assert "... and 3 more" in as_text(RUN, limit=1)
    odd = replace(RUN, issues=(replace(ISSUES[3], file="web/\x1b[2J\nx.py"),))
    assert as_text(odd).splitlines()[0] == "web/?[2J?x.py"
    assert as_text(RUN).endswith("earlier analysis\n")


def test_sessions_and_the_comparison_are_tables():
    assert sessions(DONE) == ["auth  s-auth  mac-mini", "web   s-web  pi4"]
    assert comparison(DONE) == [
        "approach              files  time   cost",
        "sequential            22     1m41s  $0.06",
        "parallel (5 workers)  22     52s    $0.06",
        "1.9 times as fast, at the same cost",
    ]


def test_markdown_shows_an_agents_words_as_they_are():
    text = as_markdown(RUN)

    assert text.startswith("# Analysis `r41`: incomplete\n")
    assert "`/src/large codebase` at 0123456789ab with changes, 2027-01-15 08:00 UTC" in text
    assert "### `auth/login form.py`" in text
    assert r"- **Runs what \[the user\](x) typed** (line 4, critical, Security)" in text
    assert "\n\n  No check.\n  \\<b\\>At all\\</b\\>\n" in text
    assert "\n  Suggestion: Check it.\n" in text
    assert "- `web/x.py:300`: Guess (it cites line 300 of 12)" in text
    assert "| `web` | 10 | 0 | 0 | failed, timed out | pi4 |  | 1m00s | unknown |" in text
    assert text.endswith("Not analysed: 4 not source code, 1 binary.\n")


def test_json_has_what_the_orchestrator_had_and_all_else():
    found = as_json(RUN)

    assert json.loads(json.dumps(found)) == found
    assert (found["state"], found["total_files"], found["total_issues"]) == ("incomplete", 30, 4)
    assert found["sessions"] == {"auth": "0b5c"}
    assert found["completed_chunks"] == ["auth"]
    assert found["from_cache"] is False
    assert found["started_at"] == "2027-01-15T08:00:00.250Z"
    assert found["issues"][0]["chunk"] == "auth"
    assert found["issues"][0]["issue"] == found["issues"][0]["title"]
    assert found["severities"] == {"critical": 1, "high": 0, "medium": 1, "low": 2, "info": 0}
    assert [one["doubt"] for one in found["in_doubt"]] == ["it cites line 300 of 12"]
    assert [ShardRun.from_dict(one) for one in found["shards"]] == list(RUN.shards)


def test_sarif_has_every_property_that_the_standard_demands():
    log = as_sarif(RUN)

    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    [run] = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "relayq analyze"
    assert [rule["id"] for rule in driver["rules"]] == [
        "relayq/code-quality",
        "relayq/other",
        "relayq/security",
    ]
    assert len(run["results"]) == 4
    for result in run["results"]:
        assert result["ruleId"] == driver["rules"][result["ruleIndex"]]["id"]
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["kind"] == "fail"
        assert result["message"]["text"]
        [location] = result["locations"]
        place = location["physicalLocation"]
        uri = place["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", uri)
        assert place["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"]
        region = place.get("region", {"startLine": 1})
        assert 1 <= region["startLine"] <= region.get("endLine", region["startLine"])
    base = run["originalUriBaseIds"]["SRCROOT"]["uri"]
    assert base == "file:///src/large%20codebase/"
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is False
    for at in ("startTimeUtc", "endTimeUtc"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", invocation[at])
    assert json.loads(json.dumps(log)) == log


def test_sarif_says_the_same_as_the_finding():
    results = as_sarif(RUN)["runs"][0]["results"]

    first, third = results[0], results[3]
    assert unquote(first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]) == (
        "auth/login form.py"
    )
    assert first["locations"][0]["physicalLocation"]["region"] == {"startLine": 4, "endLine": 6}
    assert (first["level"], first["properties"]["security-severity"]) == ("error", "9.5")
    assert first["message"]["text"].startswith(r"Runs what \[the user\](x) typed")
    assert "region" not in third["locations"][0]["physicalLocation"]
    prints = [one["partialFingerprints"]["relayq/v1"] for one in results]
    assert len(set(prints)) == 4


def test_sarif_counts_what_is_in_doubt_and_says_what_failed():
    [run] = as_sarif(RUN)["runs"]

    notes = run["invocations"][0]["toolExecutionNotifications"]

    assert [note["message"]["text"] for note in notes] == [
        "web: failed, timed out",
        "1 finding cites what there isn't, and isn't here",
    ]
    assert as_sarif(DONE)["runs"][0]["invocations"][0]["executionSuccessful"] is True


def test_a_report_of_a_run_that_goes_on_can_be_made():
    going = replace(RUN, ended_at=None, shards=(ShardRun("auth", 12, "running"),), issues=())

    assert summary(going)[0] == "Analysis running: 0 of 1 shard, 8 of 30 files, 0 issues"
    assert "endTimeUtc" not in as_sarif(going)["runs"][0]["invocations"][0]
    assert "None." in as_markdown(going)
    assert as_json(going)["elapsed"] is None


@pytest.mark.parametrize("raw", [{}, {"name": "x"}])
def test_what_is_no_shard_of_an_analysis_is_an_error(raw):
    with pytest.raises(ValueError, match="no shard of an analysis"):
        ShardRun.from_dict(raw)
