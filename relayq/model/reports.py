"""What came of an analysis, as it is kept and shown: as text, Markdown and JSON.

SARIF, which other programs read, is in `relayq.model.sarif`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from relayq.model.findings import Issue, Severity
from relayq.model.jobs import JobState

#: How a shard is that no session had to read.
CACHED: Final = "cached"


@dataclass(frozen=True, slots=True)
class ShardRun:
    """What became of a shard: its job, the session in which it was read, what that took.

    `state` is the job's, or `cached`. `analysed` of its `files` were read. `why` says what it
    failed for, or waits for.
    """

    name: str
    files: int
    state: str
    host: str | None = None
    job: str | None = None
    session: str | None = None
    analysed: int = 0
    issues: int = 0
    duration: float | None = None
    cost_usd: float | None = None
    tokens: int = 0
    attempts: int = 0
    why: str = ""

    @property
    def is_done(self) -> bool:
        """Whether its findings are all there."""
        return self.state in (CACHED, JobState.SUCCEEDED)

    @property
    def is_ended(self) -> bool:
        """Whether nothing will change without somebody's doing."""
        ended = (JobState.FAILED, JobState.CANCELLED, JobState.NEEDS_HUMAN)
        return self.is_done or self.state in ended

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ShardRun:
        """Return what `as_dict` gave; anything else is a ValueError."""
        try:
            return cls(**{f.name: raw[f.name] for f in fields(cls) if f.name in raw})
        except TypeError as error:
            raise ValueError(f"no shard of an analysis: {error}") from error


@dataclass(frozen=True, slots=True)
class Run:
    """An analysis: what was asked, its shards, and what they found.

    `files` are all that were to be analysed, `cached_files` those of them that haven't changed
    since an earlier one. `ended_at` is when the last shard ended, None while one goes on.
    """

    id: str
    root: str
    files: int
    by: str
    agent: str
    model: str | None
    workers: int
    started_at: float
    ended_at: float | None
    shards: tuple[ShardRun, ...]
    issues: tuple[Issue, ...]
    commit: str | None = None
    is_dirty: bool = False
    cached_files: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    version: str = ""

    @property
    def state(self) -> str:
        """`running`, `complete`, `incomplete`, or `failed` where nothing at all was analysed.

        One that has ended for now, with shards that are parked, is incomplete.
        """
        is_over = all(shard.is_ended for shard in self.shards)
        if not is_over and self.ended_at is None:
            return "running"
        if all(shard.is_done for shard in self.shards) and self.files_done >= self.files:
            return "complete"
        return "incomplete" if self.files_done or not is_over else "failed"

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return {"complete": 0, "failed": 1}.get(self.state, 80)

    @property
    def shards_done(self) -> int:
        """How many shards are analysed."""
        return sum(shard.is_done for shard in self.shards)

    @property
    def files_done(self) -> int:
        """How many files were read, now or for an earlier analysis."""
        return self.cached_files + sum(shard.analysed for shard in self.shards)

    @property
    def elapsed(self) -> float | None:
        """Seconds from its start to the end of its last shard."""
        return None if self.ended_at is None else max(0.0, self.ended_at - self.started_at)

    @property
    def session_time(self) -> float:
        """Seconds of all sessions: what one after the other would have taken."""
        return sum(shard.duration or 0.0 for shard in self.shards)

    @property
    def cost_usd(self) -> float | None:
        """What the agents say that it cost, None where none said anything."""
        costs = [shard.cost_usd for shard in self.shards if shard.cost_usd is not None]
        return sum(costs) if costs else None

    @property
    def sessions(self) -> dict[str, str]:
        """The session of each shard that has one."""
        return {shard.name: shard.session for shard in self.shards if shard.session}

    @property
    def verified(self) -> list[Issue]:
        """The findings whose places exist."""
        return [issue for issue in self.issues if issue.is_verified]

    @property
    def doubtful(self) -> list[Issue]:
        """The findings that cite what there isn't."""
        return [issue for issue in self.issues if not issue.is_verified]

    @property
    def counts(self) -> dict[str, int]:
        """How many verified findings there are of each severity, of all five."""
        found = Counter(issue.severity for issue in self.verified)
        return {severity.value: found[severity] for severity in Severity}


def as_text(run: Run, *, limit: int | None = None) -> str:
    """Return the findings, at most so many of them, and what the analysis came to."""
    lines = []
    shown = run.verified[:limit]
    for file, issues in groupby(shown, key=lambda issue: issue.file):
        lines.append(file)
        for issue in issues:
            where = "" if issue.line is None else str(issue.line)
            lines.append(f"  {where:>5}  {issue.severity.value:8}  {_one_line(issue)}")
        lines.append("")
    if len(shown) < len(run.verified):
        lines += [f"... and {len(run.verified) - len(shown)} more", ""]
    if run.doubtful:
        lines.append("In doubt, since what they cite isn't there:")
        lines += [
            f"  {issue.place or '?'}: {_one_line(issue)} ({issue.doubt})"
            for issue in run.doubtful[:limit]
        ]
        lines.append("")
    return "\n".join(_inert(line) for line in [*lines, *summary(run)]) + "\n"


def _inert(line: str) -> str:
    """Return a line that does nothing to a terminal: names of files may hold anything."""
    return "".join(char if char.isprintable() else "?" for char in line)


def _one_line(issue: Issue) -> str:
    return f"{issue.title}  [{issue.category}]" if issue.category else issue.title


def summary(run: Run) -> list[str]:
    """Return the last lines: whether it is complete, what was found, time and cost."""
    counts = run.counts
    bad = [f"{counts[name]} {name}" for name in ("critical", "high") if counts[name]]
    parts = [
        f"{run.shards_done} of {_number(len(run.shards), 'shard')}",
        f"{run.files_done} of {_number(run.files, 'file')}",
        _number(len(run.verified), "issue") + (f" ({', '.join(bad)})" if bad else ""),
    ]
    if run.doubtful:
        parts.append(f"{len(run.doubtful)} in doubt")
    lines = [f"Analysis {run.state}: {', '.join(parts)}"]
    lines += [f"  {shard.name}: {shard.state}{_because(shard)}" for shard in _undone(run)]
    facts = []
    if run.elapsed is not None:
        facts.append(f"Time {_time(run.elapsed)} (sum of sessions {_time(run.session_time)})")
    facts.append(f"cost {_money(run.cost_usd)}")
    facts.append(f"sessions {len(run.sessions)}")
    if run.cached_files:
        facts.append(f"{_number(run.cached_files, 'file')} unchanged since an earlier analysis")
    return [*lines, "  ".join(facts)]


def _undone(run: Run) -> list[ShardRun]:
    return [shard for shard in run.shards if not shard.is_done or shard.analysed < shard.files]


def _because(shard: ShardRun) -> str:
    read = f"{shard.analysed} of {_number(shard.files, 'file')} read" if shard.is_done else ""
    return f", {shard.why or read}" if shard.why or read else ""


def sessions(run: Run) -> list[str]:
    """Return a line for each session, by which its shard can be asked further."""
    width = max((len(name) for name in run.sessions), default=0)
    where = {shard.name: shard.host or "" for shard in run.shards}
    rows = (f"{name:{width}}  {id}  {where[name]}" for name, id in run.sessions.items())
    return [_inert(row.rstrip()) for row in rows]


def comparison(run: Run) -> list[str]:
    """Return the table of one session after the other against what was done."""
    count = sum(shard.analysed for shard in run.shards if shard.session)
    at_once = f"parallel ({_number(run.workers, 'worker')})"
    rows = [
        ("approach", "files", "time", "cost"),
        ("sequential", str(count), _time(run.session_time), _money(run.cost_usd)),
        (at_once, str(count), _time(run.elapsed), _money(run.cost_usd)),
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if run.elapsed and run.session_time > run.elapsed:
        lines.append(f"{run.session_time / run.elapsed:.1f} times as fast, at the same cost")
    return lines


def as_markdown(run: Run) -> str:
    """Return the report that people keep, and show to each other."""
    return "\n".join(_markdown(run)).rstrip() + "\n"


def _markdown(run: Run) -> Iterator[str]:
    yield f"# Analysis {_code(run.id)}: {run.state}\n"
    yield f"{_code(run.root)}{_commit(run)}, {_instant(run.started_at)}, by {_by(run)}.\n"
    for line in summary(run):
        yield f"{_plain(line.strip())}  "
    yield "\n| severity | issues |\n|---|---|"
    yield from (f"| {name} | {count} |" for name, count in run.counts.items() if count)
    yield "\n## Issues\n"
    if not run.verified:
        yield "None.\n"
    for file, issues in groupby(run.verified, key=lambda issue: issue.file):
        yield f"### {_code(file)}\n"
        for issue in issues:
            yield from _item(issue)
        yield ""
    if run.doubtful:
        yield "## In doubt\n\nWhat these cite isn't there.\n"
        for issue in run.doubtful:
            yield f"- {_code(issue.place)}: {_plain(issue.title)} ({_plain(issue.doubt)})"
        yield ""
    yield from _coverage(run)


def _item(issue: Issue) -> Iterator[str]:
    line = "" if issue.line is None else f"line {issue.line}, "
    kind = f", {_plain(issue.category)}" if issue.category else ""
    yield f"- **{_plain(issue.title)}** ({line}{issue.severity.value}{kind})"
    if issue.detail:
        yield _indented(_plain(issue.detail))
    if issue.suggestion:
        yield _indented(f"Suggestion: {_plain(issue.suggestion)}")


def _coverage(run: Run) -> Iterator[str]:
    yield "## Shards\n"
    yield "| shard | files | read | issues | state | host | session | time | cost |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in run.shards:
        cells = (
            _code(one.name),
            str(one.files),
            str(one.analysed),
            str(one.issues),
            _plain(one.state + _because(one)),
            _plain(one.host or ""),
            _code(one.session) if one.session else "",
            _time(one.duration),
            _money(one.cost_usd),
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    if run.left_out:
        counts = ", ".join(f"{count} {_plain(why)}" for why, count in run.left_out.items())
        yield f"\nNot analysed: {counts}."


def _by(run: Run) -> str:
    model = f" ({_plain(run.model)})" if run.model else ""
    version = f", relayq {run.version}" if run.version else ""
    return f"{_plain(run.agent)}{model}{version}"


def _commit(run: Run) -> str:
    if run.commit is None:
        return ""
    return f" at {run.commit[:12]}{' with changes' if run.is_dirty else ''}"


def _code(text: str) -> str:
    """Return a text in as many backticks as it needs: a path may hold some."""
    text = " ".join(text.split())
    ticks = "`"
    while ticks in text:
        ticks += "`"
    inside = f" {text} " if text.startswith("`") or text.endswith("`") else text
    return f"{ticks}{inside}{ticks}" if text else ""


_SPECIAL: Final = str.maketrans({char: f"\\{char}" for char in "\\*_[]<>#|`&~"})


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is: an agent's words are no markup."""
    return text.translate(_SPECIAL)


def _indented(text: str) -> str:
    return "\n" + "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _number(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _money(usd: float | None) -> str:
    if usd is None:
        return "unknown"
    return f"${usd:.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.4f}"


def instant(at: float) -> str:
    """Return an instant as JSON has it: RFC 3339 in UTC with milliseconds."""
    whole = datetime.fromtimestamp(at, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{whole.microsecond // 1000:03}Z"


def as_json(run: Run) -> dict[str, Any]:
    """Return all of it as JSON shows it."""
    return {
        "version": 1,
        "run": run.id,
        "state": run.state,
        "root": run.root,
        "commit": run.commit,
        "is_dirty": run.is_dirty,
        "agent": run.agent,
        "model": run.model,
        "by": run.by,
        "workers": run.workers,
        "started_at": instant(run.started_at),
        "ended_at": None if run.ended_at is None else instant(run.ended_at),
        "elapsed": run.elapsed,
        "session_time": run.session_time,
        "cost_usd": run.cost_usd,
        "total_files": run.files,
        "files_analyzed": run.files_done,
        "files_from_cache": run.cached_files,
        "left_out": dict(run.left_out),
        "total_issues": len(run.verified),
        "severities": run.counts,
        "issues": [_issue(issue) for issue in run.verified],
        "in_doubt": [_issue(issue) for issue in run.doubtful],
        "sessions": run.sessions,
        "completed_chunks": [shard.name for shard in run.shards if shard.is_done],
        "from_cache": bool(run.cached_files) and run.cached_files == run.files,
        "shards": [shard.as_dict() for shard in run.shards],
    }


def _issue(issue: Issue) -> dict[str, Any]:
    own: Sequence[str] = issue.shards or ("",)
    return {"chunk": own[0], "issue": issue.title, **issue.as_dict()}
