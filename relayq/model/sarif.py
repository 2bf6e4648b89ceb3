"""An analysis as SARIF 2.1.0, which editors and code hosts show beside the code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from relayq.model.findings import Issue, Severity
from relayq.model.reports import Run, instant

_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_LEVELS: Final = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}
#: What code hosts sort security findings by, from 0 to 10.
_SCORES: Final = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.5",
    Severity.INFO: "0.5",
}
_OTHER: Final = "other"
_BASE: Final = "SRCROOT"


def as_sarif(run: Run) -> dict[str, Any]:
    """Return the verified findings of an analysis; those in doubt are only counted.

    A category is a rule. Without `ended_at` it is a report of what there is so far.
    """
    rules = sorted({_rule_of(issue) for issue in run.verified})
    seen: Counter[str] = Counter()
    results = []
    for issue in run.verified:
        print_ = issue.fingerprint
        results.append(_result(issue, rules, f"{print_}:{seen[print_]}"))
        seen[print_] += 1
    root = quote(run.root.replace("\\", "/").strip("/"))
    driver: dict[str, Any] = {
        "name": "relayq analyze",
        "rules": [_rule(rule, run.verified) for rule in rules],
    }
    if run.version:
        driver["version"] = run.version
        if re.fullmatch(r"\d+\.\d+\.\d+(?:[-+][\w.+-]+)?", run.version):
            driver["semanticVersion"] = run.version
    found: dict[str, Any] = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"relayq/{run.id}"},
        "invocations": [_invocation(run)],
        "originalUriBaseIds": {_BASE: {"uri": f"file:///{root}/" if root else "file:///"}},
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {
            "state": run.state,
            "files": run.files,
            "filesAnalyzed": run.files_done,
            "commit": run.commit,
            "isDirty": run.is_dirty,
        },
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [found]}


def _rule_of(issue: Issue) -> str:
    return re.sub(r"[^a-z0-9]+", "-", issue.category.casefold()).strip("-") or _OTHER


def _rule(rule: str, issues: Sequence[Issue]) -> Mapping[str, Any]:
    own = [issue for issue in issues if _rule_of(issue) == rule]
    worst = min((issue.severity for issue in own), key=lambda severity: severity.rank)
    name = "".join(word.capitalize() for word in rule.split("-"))
    return {
        "id": f"relayq/{rule}",
        "name": name,
        "shortDescription": {"text": f"{rule.replace('-', ' ').capitalize()}, found by an agent"},
        "defaultConfiguration": {"level": _LEVELS[worst]},
        "properties": {"tags": [rule]},
    }


def _result(issue: Issue, rules: Sequence[str], fingerprint: str) -> dict[str, Any]:
    rule = _rule_of(issue)
    # An agent's brackets would be a link: the format escapes them with backslashes.
    texts = [issue.title, issue.detail, issue.suggestion and f"Suggestion: {issue.suggestion}"]
    said = re.sub(r"([\\\[\]])", r"\\\1", "\n\n".join(text for text in texts if text))
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(issue.file), "uriBaseId": _BASE}}
    if issue.line is not None:
        place["region"] = {"startLine": issue.line}
        if issue.end_line is not None:
            place["region"]["endLine"] = issue.end_line
    properties: dict[str, Any] = {"severity": issue.severity.value, "shards": list(issue.shards)}
    if "security" in rule:
        properties["security-severity"] = _SCORES[issue.severity]
    if issue.confidence is not None:
        properties["confidence"] = issue.confidence
    return {
        "ruleId": f"relayq/{rule}",
        "ruleIndex": rules.index(rule),
        "kind": "fail",
        "level": _LEVELS[issue.severity],
        "message": {"text": said},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"relayq/v1": fingerprint},
        "properties": properties,
    }


def _invocation(run: Run) -> dict[str, Any]:
    notes = [
        _note("warning", f"{shard.name}: {shard.state}{f', {shard.why}' if shard.why else ''}")
        for shard in run.shards
        if not shard.is_done
    ]
    if run.doubtful:
        count = len(run.doubtful)
        said = "1 finding cites" if count == 1 else f"{count} findings cite"
        notes.append(_note("note", f"{said} what there isn't, and isn't here"))
    invocation: dict[str, Any] = {
        "executionSuccessful": run.state == "complete",
        "startTimeUtc": instant(run.started_at),
        "toolExecutionNotifications": notes,
    }
    if run.ended_at is not None:
        invocation["endTimeUtc"] = instant(run.ended_at)
    return invocation


def _note(level: str, text: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": re.sub(r"([\\\[\]])", r"\\\1", text)}}
