"""All rendering: what records and hosts look like, for people and as JSON.

A job's own text (its command, its name, an error) may hold anything. It reaches a terminal only
through `inert`, which leaves no control character standing.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from relayq.model.hosts import Host
from relayq.model.jobs import FINAL, JobRecord, JobState, Outcome, Reason, Spec
from relayq.results import failure

_SPACES = re.compile(r"[\t\n\r\v\f]+")
# CSI and OSC sequences as a whole, other escapes with the character that they take along.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b.?"
)
_GAP = "  "
_WIDEST = 60
_SHORTEST_ID = 4
_GIVING_WAY = ("WHAT", "NOTE", "TYPE")
_COLOURS = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "lost": "yellow",
    "needs_human": "magenta",
    "cancelled": "dim",
    "offline": "red",
    "online": "green",
}


def inert(text: str) -> str:
    """Return the text as one line that can't move a cursor: `?` for what isn't printable."""
    line = _SPACES.sub(" ", _ESCAPE.sub("?", text))
    return "".join(c if c.isprintable() else "?" for c in line)


def age(seconds: float) -> str:
    """Return an age in one unit: `12s`, `4m`, `1h`, `3d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def span(seconds: float) -> str:
    """Return a duration as people say it: `0.2s`, `3m51s`, `2h04m`, `1d02h`."""
    seconds = max(0.0, seconds)
    # Rounding comes first: 59.96 s is a minute.
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{small}"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def limit(seconds: float) -> str:
    """Return a configured duration the way it was typed: `5h`, `90s`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def size(count: float) -> str:
    """Return a number of bytes as people read it: `98 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def instant(at: float) -> str:
    """Return an instant in local time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return for each id the shortest beginning, of at least four, that no other one has."""
    ordered = sorted(set(ids))
    short = {}
    for i, id in enumerate(ordered):
        beside = [*ordered[max(0, i - 1) : i], *ordered[i + 1 : i + 2]]
        shared = max((_shared(id, other) for other in beside), default=0)
        short[id] = id[: max(_SHORTEST_ID, shared + 1)]
    return short


def _shared(one: str, other: str) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def command_of(spec: Spec | None) -> str:
    """Return what a job runs, as it would be typed."""
    if spec is None:
        return "?"
    command = spec.payload.get("cmd", "")
    if isinstance(command, list):
        return shlex.join(str(part) for part in command)
    return str(command) if command else " ".join(f"{k}={v}" for k, v in spec.payload.items())


def remark(text: str) -> None:
    """Say something of relayq's own, beside the answer."""
    click.echo(f"relayq: {text}", err=True)


def verdict(record: JobRecord, outcome: Outcome | None) -> str | None:
    """Return the line on a job that ended or parked without success, None for a success."""
    where = f" on {record.host}" if record.host else ""
    match record.state:
        case JobState.SUCCEEDED:
            return None
        case JobState.CANCELLED:
            return f"{record.id}  cancelled{where}"
        case JobState.FAILED:
            took = f" after {span(outcome.run_time)}" if outcome and outcome.run_time else ""
            return f"{record.id}  failed: {inert(failure(record, outcome))}{took}{where}"
    return f"{record.id}  {record.state.value}: {record.reason}{where}"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON value."""
    click.echo(json.dumps({"schema": 1, **value}))


def as_json(record: JobRecord) -> dict[str, Any]:
    """Return a record as JSON shows it: instants in RFC 3339, UTC."""
    shown = _instants(record.as_dict())
    if shown["spec"] is not None:
        shown["spec"] = _instants(shown["spec"])
    return shown


def _instants(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: rfc3339(value) if name.endswith("_at") and value is not None else value
        for name, value in fields.items()
    }


def rfc3339(at: float) -> str:
    """Return an instant as JSON shows it."""
    shown = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return shown.replace("+00:00", "Z")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings: by rich on a terminal, else as aligned plain text."""
    clean = [[inert(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, clean)
    else:
        click.echo("\n".join(plain_table(columns, clean)))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines; long cells are cut and end in `...`."""
    cells = [list(columns), *([_cut(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(columns))]
    return [
        _GAP.join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def _cut(cell: str) -> str:
    return cell if len(cell) <= _WIDEST else cell[: _WIDEST - 3] + "..."


def _width(text: str) -> int:
    """Return how many columns a terminal gives the text."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        # The other columns keep their width on a narrow terminal.
        widest = None if name in _GIVING_WAY else max(_width(row[i]) for row in [columns, *rows])
        shown.add_column(name, no_wrap=True, overflow="ellipsis", min_width=widest)
    for row in rows:
        # Text takes no markup.
        shown.add_row(*(Text(cell, style=_COLOURS.get(cell.split(" ")[0], "")) for cell in row))
    Console(highlight=False).print(shown)


JOB_COLUMNS = ("ID", "STATE", "HOST", "KIND", "WHAT", "AGE", "TIME", "NOTE")


def job_rows(records: Sequence[JobRecord], now: float) -> list[list[str]]:
    """Return the rows of `ps`."""
    short = short_ids(record.id for record in records)
    return [
        [
            short[record.id],
            record.state.value,
            record.target,
            record.kind,
            _what(record.spec),
            age(now - record.created_at),
            _run_time(record, now),
            _note(record, now),
        ]
        for record in records
    ]


def _what(spec: Spec | None) -> str:
    named = f"{spec.name}: " if spec is not None and spec.name else ""
    return named + command_of(spec)


def _run_time(record: JobRecord, now: float) -> str:
    """Return how long the last attempt runs or ran; `-` for a job that wasn't claimed."""
    began = record.started_at or record.claimed_at
    if began is None or record.state not in (JobState.RUNNING, *FINAL):
        return "-"
    return span((now if record.finished_at is None else record.finished_at) - began)


def _note(record: JobRecord, now: float) -> str:
    match record.state:
        case JobState.FAILED:
            return failure(record, None)
        case JobState.NEEDS_HUMAN:
            return record.reason or ""
        case JobState.SCHEDULED if record.due_at is not None:
            return f"due in {age(record.due_at - now)}"
        case JobState.WAITING if record.spec is not None:
            return "after " + ", ".join(record.spec.after)
        case JobState.RUNNING if record.cancel_at is not None:
            return "being cancelled"
        case JobState.LOST:
            return "its host doesn't answer"
    return ""


def job_counts(counts: Mapping[JobState, int], shown: Mapping[JobState, int]) -> str:
    """Return the last line of `ps`: the totals, and how many live jobs aren't in the table."""
    parts = [
        f"{counts[JobState.RUNNING]} active",
        f"{counts[JobState.QUEUED]} queued",
        f"{counts[JobState.FAILED]} failed",
    ]
    hidden = sum(
        max(0, count - shown.get(state, 0)) for state, count in counts.items() if not state.is_final
    )
    if hidden:
        parts.append(f"{hidden} more not shown (relayq ps -a)")
    return " . ".join(parts)


def job_details(record: JobRecord, outcome: Outcome | None, now: float) -> list[str]:
    """Return the lines of `show`."""
    since = record.finished_at or record.started_at or record.created_at
    name = f'  "{inert(record.spec.name)}"' if record.spec and record.spec.name else ""
    lines = [
        f"{record.id}  {record.state.value}  since {instant(since)} ({age(now - since)}){name}"
    ]
    for label, value in _details(record, outcome, now):
        first, *rest = [inert(line) for line in value.splitlines()] or [""]
        lines += [f"  {label:<10}{first}".rstrip(), *(" " * 12 + line for line in rest)]
    return lines


def _details(record: JobRecord, outcome: Outcome | None, now: float) -> Iterable[tuple[str, str]]:
    spec = record.spec
    yield "Command", command_of(spec)
    yield "Kind", record.kind
    yield "Host", _where(record)
    if spec is not None:
        yield "Cwd", str(spec.payload.get("cwd") or "~")
        if env := spec.payload.get("env"):
            yield "Env", ", ".join(env)
        yield "Limits", _limits(spec)
        if spec.after:
            yield "After", ", ".join(spec.after)
    if record.state is JobState.FAILED:
        yield "Failed", failure(record, outcome)
    elif record.reason not in (None, Reason.EXIT):
        yield "Reason", str(record.reason)
    if record.exit_code is not None:
        yield "Exit", str(record.exit_code)
    if record.signal is not None:
        yield "Signal", str(record.signal)
    if outcome is not None:
        yield "Output", _output(outcome)
    yield "Times", _times(record, now)
    yield "Submitted", spec.submitter if spec is not None else "?"
    if record.note:
        yield "Note", record.note
    yield "Next", " | ".join(f"relayq {verb} {record.id}" for verb in _next(record))


def _where(record: JobRecord) -> str:
    attempt = f"attempt {record.attempt}" if record.attempt else "no attempt yet"
    losses = f", lost {record.losses} times" if record.losses else ""
    phase = f", {record.phase}" if record.state is JobState.RUNNING and record.phase else ""
    return f"{'any host' if record.target == '-' else record.target} ({attempt}{losses}{phase})"


def _limits(spec: Spec) -> str:
    parts = [] if spec.timeout is None else [f"timeout {limit(spec.timeout)}"]
    parts += [f"priority {spec.priority}", f"retries {spec.retries}", f"on lost {spec.on_lost}"]
    return ", ".join(parts)


def _output(outcome: Outcome) -> str:
    lost = f", {size(outcome.dropped_bytes)} lost to a full disk" if outcome.dropped_bytes else ""
    kept = "" if outcome.is_whole else f", the whole of it on {outcome.host}"
    return f"{size(outcome.output_bytes)}{kept}{lost}"


def _times(record: JobRecord, now: float) -> str:
    named = (
        ("submitted", record.created_at),
        ("claimed", record.claimed_at),
        ("started", record.started_at),
        ("ended", record.finished_at),
    )
    parts = [f"{name} {instant(at)}" for name, at in named if at is not None]
    ran = _run_time(record, now)
    return "\n".join(parts if ran == "-" else [*parts, f"ran {ran}"])


def _next(record: JobRecord) -> list[str]:
    if record.state.is_final:
        return ["logs", "retry"]
    if record.state is JobState.NEEDS_HUMAN:
        return ["logs", "retry", "cancel"]
    return ["logs -f", "wait", "cancel"] if record.attempt else ["wait", "cancel"]


HOST_COLUMNS = ("HOST", "STATE", "SLOTS", "LOAD", "DONE", "TYPE", "SEEN")


def host_rows(hosts: Sequence[Host], now: float) -> list[list[str]]:
    """Return the rows of `status`."""
    return [
        [
            host.name,
            f"online {'busy' if host.active else 'idle'}" if host.is_online else "offline",
            f"{host.active}/{host.slots}",
            f"{host.facts['load']:.1f}" if host.is_online and "load" in host.facts else "-",
            str(host.finished),
            host.model or host.os or "-",
            f"{age(now - host.seen_at)} ago",
        ]
        for host in hosts
    ]


def host_as_json(host: Host) -> dict[str, Any]:
    """Return a host as JSON shows it."""
    return {
        "name": host.name,
        "online": host.is_online,
        "slots": host.slots,
        "active": host.active,
        "queued": host.queued,
        "finished": host.finished,
        "version": host.version,
        "seen_at": rfc3339(host.seen_at),
        "facts": dict(host.facts),
    }
