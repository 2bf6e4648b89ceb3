"""How runs of workflows look: a table of steps, what failed and what to type then, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relayq.cli import meters, show
from relayq.cli.tables import painted
from relayq.cli.texts import age, inert, instant, number_of, rfc3339, span
from relayq.model.graph import Graph, mermaid, picture
from relayq.model.jobs import FINAL, JobRecord, JobState, Reason

if TYPE_CHECKING:
    from relayq.flowruns import FlowRun, StepJob

COLUMNS = ("STEP", "STATE", "HOST", "TIME", "NOTE", "JOB")
#: How many jobs that failed are told one by one.
_TOLD = 5


def rows(jobs: Sequence[StepJob], now: float) -> list[list[str]]:
    """Return the rows of the table."""
    return [
        [
            ("  " if one.is_child else "") + one.name,
            "paused" if show.state_of(one.record) == "paused" else one.state,
            one.record.target,
            time_of(one.record, now),
            note_of(one.record, jobs, now),
            one.record.id,
        ]
        for one in jobs
    ]


def time_of(record: JobRecord, now: float) -> str:
    """Return how long the last attempt runs or ran."""
    began = record.started_at or record.claimed_at
    if began is None or record.state not in (JobState.RUNNING, *FINAL) or record.attempt == 0:
        return "-"
    return span((now if record.finished_at is None else record.finished_at) - began)


def note_of(record: JobRecord, jobs: Sequence[StepJob], now: float) -> str:
    """Say why a job is where it is, if that isn't plain."""
    spec = record.spec
    match record.state:
        case JobState.FAILED:
            lenient = " (continues)" if spec is not None and spec.is_lenient else ""
            return f"{why(record)}{lenient}"
        case JobState.SUCCEEDED if record.reason == Reason.SKIPPED:
            return "its condition isn't true" if record.attempt else _why_skipped(record, jobs)
        case JobState.CANCELLED if record.reason == Reason.HALTED:
            return "another one failed"
        case JobState.WAITING if spec is not None:
            return _awaited(record, jobs)
        case JobState.RUNNING if record.question:
            return f"asks: {record.question}"
        case JobState.RUNNING if record.cancel_at is not None:
            return "being cancelled"
        case JobState.RUNNING if record.paused is not None:
            return record.paused
        case JobState.RUNNING if record.progress is not None:
            return meters.cell(record.progress, now)
        case JobState.SCHEDULED if record.due_at is not None:
            return show.due(record, now)
        case JobState.NEEDS_HUMAN:
            return record.question or record.reason or ""
    return ""


def why(record: JobRecord) -> str:
    """Say why a job failed."""
    if record.reason == Reason.UPSTREAM:
        return "a step before it failed"
    return show.why_failed(record, None)


def _why_skipped(record: JobRecord, jobs: Sequence[StepJob]) -> str:
    if record.spec is not None and record.spec.when == "failure":
        return "nothing failed"
    return "a step before it was skipped"


def _awaited(record: JobRecord, jobs: Sequence[StepJob]) -> str:
    """Say which steps a job waits for."""
    if record.spec is None:
        return ""
    if any(one.is_child and one.record.spec for one in jobs if one.step == record.spec.step):
        return "its jobs"
    awaited = {*record.spec.after, *record.spec.after_any}
    steps = [one.step for one in jobs if one.record.id in awaited and not one.record.state.is_final]
    counts = Counter(steps)
    told = [f"{step} x{count}" if count > 1 else step for step, count in counts.items()]
    return f"after {', '.join(told)}" if told else ""


def total(jobs: Sequence[StepJob]) -> list[str]:
    """Return what a run's last line counts."""
    counts = Counter(one.state for one in jobs)
    order = ("succeeded", "skipped", "failed", "cancelled", "running", "queued", "waiting")
    words = [*order, *(word for word in counts if word not in order)]
    return [f"{counts[word]} {word}" for word in words if counts[word]]


def head(run: FlowRun, state: str) -> str:
    """Return the first line of `show`."""
    record = run.record
    began = f"since {instant(record.created_at)}"
    return f"{run.id}  {painted(state, state)}  {inert(record.name)}  {began}"


def inputs_line(run: FlowRun) -> str:
    """Return the inputs of a run as they were given."""
    given = run.record.inputs
    return "  Inputs  " + ", ".join(f"{key}={inert(str(value))}" for key, value in given.items())


def conclude(id: str, state: str, jobs: Sequence[StepJob]) -> None:
    """Say what failed, and what to type then."""
    if state in ("succeeded", "running"):
        return
    own = [one for one in jobs if is_cause(one)]
    for one in own[:_TOLD]:
        where = f" on {one.record.host}" if one.record.host else ""
        took = time_of(one.record, 0.0)
        after = f" after {took}" if took != "-" else ""
        show.remark(f"{inert(one.name)} failed: {inert(why(one.record))}{after}{where}")
    if len(own) > _TOLD:
        show.remark(f"and {len(own) - _TOLD} more failed (relayq flow show {id})")
    show.remark(f"{id}  {state}: {', '.join(total(jobs))}")
    if state == "needs_human":
        show.hint("relayq review")
    elif own:
        show.hint(f"relayq logs {own[0].record.id}; then relayq flow retry {id}")
    else:
        show.hint(f"relayq flow retry {id}")


def is_cause(one: StepJob) -> bool:
    """Whether a job failed by itself, and not because of one before it."""
    record = one.record
    is_lenient = record.spec is not None and record.spec.is_lenient
    return record.state is JobState.FAILED and record.reason != Reason.UPSTREAM and not is_lenient


def drawn(
    needs: dict[str, list[str]], jobs: Sequence[StepJob], *, as_mermaid: bool = False
) -> list[str]:
    """Return a picture of the steps, with the states of a run's jobs."""
    words = {}
    for step in needs:
        states = Counter(one.state for one in jobs if one.step == step)
        one_job = sum(states.values()) == 1
        told = [state if one_job else f"{count} {state}" for state, count in states.items()]
        words[step] = inert(f"{step}  {', '.join(told)}".rstrip())
    graph = Graph(needs)
    return mermaid(graph, words).splitlines() if as_mermaid else picture(graph, words)


def as_json(run: FlowRun, state: str, jobs: Sequence[StepJob]) -> dict[str, Any]:
    """Return a run as JSON shows it."""
    from relayq.flowruns import percent_of

    record = run.record
    return {
        "id": run.id,
        "name": record.name,
        "state": state,
        "progress_percent": round(percent_of(jobs), 1),
        "created_at": rfc3339(record.created_at),
        "cancelled_at": None if record.cancelled_at is None else rfc3339(record.cancelled_at),
        "submitter": record.submitter,
        "inputs": dict(record.inputs),
        "needs": {step: list(needs) for step, needs in run.needs.items()},
        "jobs": [_job_as_json(one) for one in jobs],
    }


def _job_as_json(one: StepJob) -> dict[str, Any]:
    record = one.record
    return {
        "step": one.step,
        "label": one.label,
        "id": record.id,
        "state": one.state,
        "reason": record.reason,
        "host": record.host,
        "attempt": record.attempt,
        "exit_code": record.exit_code,
        "matrix": dict(record.spec.matrix) if record.spec is not None else {},
        "started_at": None if record.started_at is None else rfc3339(record.started_at),
        "finished_at": None if record.finished_at is None else rfc3339(record.finished_at),
        "duration": record.duration,
    }


def list_row(run: FlowRun, now: float) -> list[str]:
    """Return a run's row of `flow ls`."""
    state, counts = run.brief()
    done = sum(count for one, count in counts.items() if one.is_final)
    everything = sum(counts.values())
    failed = f", {counts[JobState.FAILED]} failed" if counts[JobState.FAILED] else ""
    record = run.record
    jobs = number_of(everything, "job") if done == everything else f"{done} of {everything} jobs"
    return [run.id, state, record.name, f"{jobs}{failed}", age(now - record.created_at)]
