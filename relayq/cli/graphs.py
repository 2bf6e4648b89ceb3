"""What a job comes after, and what ended it with others, as `ps` and `relayq show` have it."""

from __future__ import annotations

from collections.abc import Iterable

from relayq.model.jobs import JobRecord, JobState, Reason, Spec

#: How many jobs a cell of a table names.
_NAMED = 3
_WHEN = {"failure": "if one of them fails", "always": "however they end"}


def awaited(record: JobRecord) -> str:
    """Say in a few words what a waiting job waits for."""
    if record.fanned:
        return f"for the {len(record.fanned)} jobs that it became"
    spec = record.spec
    return "" if spec is None else "after " + _some((*spec.after, *spec.after_any))


def ended(record: JobRecord) -> str:
    """Say in a few words that a job was skipped, or ended with others; "" for others."""
    if record.state is JobState.SUCCEEDED and record.reason == Reason.SKIPPED:
        return "skipped"
    if record.state is JobState.CANCELLED and record.reason == Reason.HALTED:
        return "halted, with others"
    return ""


def asked(spec: Spec) -> Iterable[tuple[str, str]]:
    """Say what a job comes after, and what follows from its end, a line each."""
    when = _WHEN.get(spec.when)
    if spec.after:
        yield "After", ", ".join(spec.after) + (f" ({when})" if when else "")
    if spec.after_any:
        yield "After end", ", ".join(spec.after_any)
    if spec.is_lenient:
        yield "Lenient", "its failure counts as success"
    if spec.halts:
        yield "Halts", ", ".join(spec.halts)
    if spec.flow:
        yield "Workflow", spec.flow + (f", step {spec.step}" if spec.step else "")


def _some(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more
