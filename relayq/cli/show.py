"""What records and hosts look like, for people and as JSON.

A job's own text (its command, its name, an error) may hold anything. It reaches a terminal only
through `inert`, which leaves no control character standing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relayq.cli import files, git, graphs, meters, scripts
from relayq.cli.texts import age, harmless, inert, rfc3339, short_ids, span
from relayq.model.jobs import FINAL, JobRecord, JobState, Outcome, Reason, Spec
from relayq.model.placement import MEMORY
from relayq.parsing import size_text

if TYPE_CHECKING:
    from relayq.results import JobResult

#: What a shell means by these codes; a command may mean something else.
_NOT_FOUND = 127
_SHELL_SAYS = {126: "not executable", _NOT_FOUND: "command not found"}


def command_of(spec: Spec | None) -> str:
    """Return what a job runs, as it would be typed."""
    if spec is None:
        return "?"
    if "audio" in spec.payload:
        from relayq.model import transcripts

        return transcripts.described(spec.payload)
    if "prompt" in spec.payload:
        return str(spec.payload["prompt"])
    if "inputs" in spec.payload and "output" in spec.payload:
        return _made_of(spec.payload)
    command = spec.payload.get("cmd", "")
    if spec.kind == "run_batch":
        return f"{len(spec.payload['items'])} commands, the first: {spec.payload['items'][0][1]}"
    if isinstance(command, list):
        return scripts.called(command) or shlex.join(str(part) for part in command)
    return str(command) if command else " ".join(f"{k}={v}" for k, v in spec.payload.items())


def _made_of(payload: Mapping[str, Any]) -> str:
    """Return `talk.mov -> talk.mp4 (web)`."""
    inputs = payload["inputs"]
    names = [inputs] if isinstance(inputs, str) else inputs
    of = ", ".join(str(one).rpartition("/")[2] for one in names)
    output = str(payload.get("target") or payload["output"]).rpartition("/")[2]
    preset = f" ({payload['preset']})" if payload.get("preset") else ""
    return f"{of} -> {output}{preset}"


def kind_of(record: JobRecord) -> str:
    """Return a job's kind, of an agent's job with the agent that works on it."""
    agent = record.spec.payload.get("agent", "") if record.spec is not None else ""
    if record.account:
        agent = record.account.partition("/")[0]
    if record.kind == "run_claude":
        agent = agent or "claude"
    return f"agent/{agent}" if agent else record.kind


def remark(text: str) -> None:
    """Say something of relayq's own, beside the answer."""
    click.echo(f"relayq: {harmless(text)}", err=True)


def hint(text: str) -> None:
    """Say what to type next."""
    click.echo(f"  hint: {harmless(text)}", err=True)


def verdict(record: JobRecord, outcome: Outcome | None) -> str | None:
    """Return the line on a job that ended or parked without success, None for a success."""
    where = f" on {record.host}" if record.host else ""
    match record.state:
        case JobState.SUCCEEDED:
            return None
        case JobState.CANCELLED:
            halted = f" ({graphs.ended(record)})" if record.reason == Reason.HALTED else ""
            return f"{record.id}  cancelled{halted}{where}"
        case JobState.FAILED:
            took = f" after {span(outcome.run_time)}" if outcome and outcome.run_time else ""
            return f"{record.id}  failed: {inert(why_failed(record, outcome))}{took}{where}"
    why = inert(record.question or record.reason or "")
    return f"{record.id}  {record.state.value}: {why}{where}"


def why_failed(record: JobRecord, outcome: Outcome | None) -> str:
    """Say why a job failed, in the words that a person would use."""
    if record.reason == Reason.EXIT and record.exit_code in _SHELL_SAYS:
        return f"exit {record.exit_code} ({_SHELL_SAYS[record.exit_code]})"
    if record.reason == Reason.UPSTREAM:
        said = outcome.error if outcome is not None else None
        return said or f"a job that it {'became' if record.fanned else 'comes after'} failed"
    from relayq.model.ends import failure

    return failure(record, outcome)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON value."""
    said = {"schema": 1, **value}
    try:
        text = json.dumps(said, allow_nan=False)
    except ValueError:
        # Python reads `1e999` as a number, which JSON can't have.
        text = json.dumps(json.loads(json.dumps(said), parse_constant=lambda _: None))
    click.echo(text)


def as_json(record: JobRecord) -> dict[str, Any]:
    """Return a record as JSON shows it: instants in RFC 3339, UTC."""
    shown = _instants(record.as_dict())
    if record.progress is not None:
        shown["progress"]["at"] = rfc3339(record.progress.at)
    if record.spec is not None:
        shown["spec"] = spec_as_json(record.spec)
    return shown


def with_remarks(result: JobResult, record: JobRecord | None = None) -> dict[str, Any]:
    """Return a job as JSON shows it, what its limits did, and what it brought back."""
    shown = as_json(record or result.record)
    brought = {"files": files.of_result(result.files), "git": git.of_result(result)}
    return {**shown, "remarks": list(result.remarks), "outputs": dict(result.outputs), **brought}


def tell_remarks(result: JobResult) -> None:
    """Say what a job's limits did; that one wasn't held is told by nothing else."""
    for text in result.remarks:
        remark(f"{result.id}  {inert(text)}")
    git.tell(result)


def spec_as_json(spec: Spec) -> dict[str, Any]:
    """Return what was asked for as JSON shows it."""
    return {**_instants(asdict(spec)), **files.of_spec(spec)}


def _instants(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: rfc3339(value) if name.endswith("_at") and value is not None else value
        for name, value in fields.items()
    }


JOB_COLUMNS = ("ID", "STATE", "HOST", "KIND", "WHAT", "AGE", "TIME", "PROGRESS")
#: What `ps --columns` can show besides.
MORE_COLUMNS = ("NAME", "GROUP", "LABELS", "META", "PRIO", "ATTEMPT", "SUBMITTER", "COMMAND")


def job_rows(
    records: Sequence[JobRecord], now: float, columns: Sequence[str] = JOB_COLUMNS
) -> list[list[str]]:
    """Return the rows of `ps`."""
    short = short_ids(record.id for record in records)
    return [
        [_CELLS[column](record, now) if column != "ID" else short[record.id] for column in columns]
        for record in records
    ]


def what_of(spec: Spec | None) -> str:
    """Return a job's name, if it has one, and what it runs."""
    command = command_of(spec)
    if spec is None or not spec.name or spec.name == command:
        return command
    return f"{spec.name}: {command}"


def state_of(record: JobRecord) -> str:
    """Return a job's state in the word that people see: a running one may stand still."""
    is_paused = record.state is JobState.RUNNING and record.paused is not None
    return "paused" if is_paused else record.state.value


def run_time(record: JobRecord, now: float) -> str:
    """Return how long the last attempt runs or ran; `-` for a job that wasn't claimed."""
    began = record.started_at or record.claimed_at
    if began is None or record.state not in (JobState.RUNNING, *FINAL):
        return "-"
    return span((now if record.finished_at is None else record.finished_at) - began)


def _progress(record: JobRecord, now: float) -> str:
    """Return how far a job is, or why it isn't any farther."""
    match record.state:
        case JobState.FAILED:
            return why_failed(record, None)
        case JobState.NEEDS_HUMAN:
            return record.question or record.reason or ""
        case JobState.RUNNING if record.question:
            return f"asks: {record.question}"
        case JobState.SCHEDULED if record.due_at is not None:
            return due(record, now)
        case JobState.QUEUED if record.spec is not None:
            return _queued_note(record, record.spec, now)
        case JobState.WAITING:
            return graphs.awaited(record)
        case JobState.RUNNING if record.cancel_at is not None:
            return "being cancelled"
        case JobState.RUNNING if record.paused is not None:
            return _standing_still(record, record.paused)
        case JobState.RUNNING if record.progress is not None:
            return meters.cell(record.progress, now)
        case JobState.LOST:
            return "its host doesn't answer"
    return graphs.ended(record)


def _standing_still(record: JobRecord, why: str) -> str:
    fraction = record.progress.fraction if record.progress is not None else None
    return why if fraction is None else f"{meters.percent(fraction).strip()}  {why}"


def _queued_note(record: JobRecord, spec: Spec, now: float) -> str:
    """Say for what a queued job waits, as far as its record tells."""
    if record.overflow_at is not None:
        return f"overflow in {span(max(0.0, record.overflow_at - now))}"
    if record.queue.startswith("with."):
        return f"waits for the host of {spec.with_job}"
    return ", ".join(wishes_of(spec))


def due(record: JobRecord, now: float) -> str:
    """Say when a scheduled job starts, and of a retry which one it is and why it comes."""
    when = f"in {span(record.due_at - now)}" if record.due_at is not None else ""
    if record.attempt == 0 or record.reason is None:
        return f"due {when}"
    why = why_failed(record, None)
    if record.reason in (Reason.HOST, Reason.AUTH) or record.account is not None:
        return f"tried again {when} ({why})"
    retries = record.spec.retries if record.spec is not None else "?"
    return f"retry {record.failures}/{retries} {when} ({why})"


def _asked(record: JobRecord, name: str) -> str:
    value = getattr(record.spec, name, None)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text}" for key, text in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value or "")


_CELLS: Mapping[str, Callable[[JobRecord, float], str]] = {
    "STATE": lambda record, now: state_of(record),
    "HOST": lambda record, now: record.target,
    "KIND": lambda record, now: kind_of(record),
    "WHAT": lambda record, now: what_of(record.spec),
    "AGE": lambda record, now: age(now - record.created_at),
    "TIME": run_time,
    "PROGRESS": _progress,
    "NAME": lambda record, now: _asked(record, "name"),
    "GROUP": lambda record, now: _asked(record, "group"),
    "LABELS": lambda record, now: _asked(record, "labels"),
    "META": lambda record, now: _asked(record, "meta"),
    "PRIO": lambda record, now: str(record.priority),
    "ATTEMPT": lambda record, now: str(record.attempt),
    "SUBMITTER": lambda record, now: _asked(record, "submitter"),
    "COMMAND": lambda record, now: command_of(record.spec),
}


#: What `ps` counts in its last line, and whether also when there are none.
_COUNTED = (
    (JobState.RUNNING, "active", True),
    (JobState.LOST, "lost", False),
    (JobState.QUEUED, "queued", True),
    (JobState.SCHEDULED, "scheduled", False),
    (JobState.WAITING, "waiting", False),
    (JobState.NEEDS_HUMAN, "needs_human", False),
    (JobState.FAILED, "failed", True),
)


def job_counts(counts: Mapping[JobState, int], shown: Mapping[JobState, int]) -> Sequence[str]:
    """Return the last line of `ps`: the totals, and how many live jobs aren't in the table."""
    parts = [
        f"{counts[state]} {what}" for state, what, always in _COUNTED if counts[state] or always
    ]
    hidden = sum(
        max(0, count - shown.get(state, 0)) for state, count in counts.items() if not state.is_final
    )
    if hidden:
        parts.append(f"{hidden} more not shown (relayq ps -a)")
    return parts


def wishes_of(spec: Spec) -> list[str]:
    """Return what a job asks of a host beside its name, in words."""
    parts = [f"not {one}" for one in spec.excluded]
    parts += [f"needs {one}" for one in spec.needs]
    parts += [
        f"{size_text(count)} memory" if name == MEMORY else f"{name}={count}"
        for name, count in spec.resources.items()
    ]
    if spec.prefer:
        parts.append(f"rather {spec.prefer}")
    if spec.with_job:
        parts.append(f"with {spec.with_job}")
    return parts


def next_step(record: JobRecord) -> str:
    """Return the command that tells more about an end without success."""
    if is_not_found(record):
        return f"relayq run --on {record.host} 'echo $PATH'"
    verb = "logs" if record.attempt else "show"
    return f"relayq {verb} {record.id}"


def is_not_found(record: JobRecord) -> bool:
    """Whether a shell would say of this end that it didn't find the command."""
    return record.reason == Reason.EXIT and record.exit_code == _NOT_FOUND
