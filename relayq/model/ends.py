"""What the end of a job is called: why it failed, in words, and the exit status of a shell."""

from __future__ import annotations

from relayq.errors import JobCancelled, NeedsHuman
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason
from relayq.parsing import size_text

#: What a shell has for a command that wrote a file beyond its limit (SIGXFSZ).
_FILE_SIZE = 153


def failure(record: JobRecord, outcome: Outcome | None) -> str:
    """Say in a few words why a job failed."""
    if outcome is not None and outcome.error:
        # Of a runner's end its own words are all that there is to say.
        is_said = record.reason == Reason.EXIT
        return outcome.error if is_said else f"{record.reason}: {outcome.error}"
    match record.reason:
        case Reason.EXIT:
            return f"exit {record.exit_code}"
        case Reason.SIGNAL:
            return f"signal {record.signal}"
        case Reason.TIMEOUT:
            limit = f" of {record.spec.timeout:g} s" if record.spec and record.spec.timeout else ""
            return f"time limit{limit}"
        case Reason.OOM:
            return f"out of memory{_limit(record, 'memory')}"
        case Reason.OUTPUT:
            most = record.spec.max_output if record.spec else None
            return f"more than {size_text(most)} of output" if most else "too much output"
        case Reason.LOST:
            return f"its host was lost {record.losses} times"
        case Reason.HOST:
            return "its host couldn't start it"
        case Reason.USER:
            return f"a person said so: {record.note}" if record.note else "a person said so"
        case Reason.EXPIRED:
            return "expired: no host took it in time"
        case other:
            return str(other)


def _limit(record: JobRecord, name: str) -> str:
    limit = getattr(record.spec, name, None)
    return f" (limit {size_text(limit)})" if limit else ""


def exit_status(record: JobRecord) -> int:
    """Return what a shell would call the job's exit status; see the README's table."""
    match record.state:
        case JobState.SUCCEEDED:
            return 0
        case JobState.CANCELLED:
            return JobCancelled.exit_code
        case JobState.NEEDS_HUMAN:
            return NeedsHuman.exit_code
    if record.reason == Reason.TIMEOUT:
        return 124
    if record.reason == Reason.OUTPUT:
        return _FILE_SIZE
    # Out of memory: whether the command itself was ended or one that it had started.
    if record.reason in (Reason.EXIT, Reason.OOM) and record.exit_code is not None:
        return record.exit_code
    if record.reason in (Reason.SIGNAL, Reason.OOM) and record.signal is not None:
        return 128 + record.signal
    return 125
