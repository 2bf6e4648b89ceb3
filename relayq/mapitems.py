"""What became of one item of a map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relayq.errors import JobCancelled, JobFailed, JobTimedOut
from relayq.model.batches import Ran
from relayq.model.ends import failure
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason
from relayq.model.output import STDERR, STDOUT, Frame, only
from relayq.results import JobResult


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item; `input` is what stood for `{}`, where that is known."""

    number: int
    input: str | None
    job: str
    state: JobState
    reason: str = ""
    host: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    seconds: float = 0.0
    why: str = ""
    record: JobRecord | None = field(default=None, repr=False)
    result: JobResult | None = field(default=None, repr=False)
    _frames: tuple[Frame, ...] | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether its command succeeded."""
        return self.state is JobState.SUCCEEDED

    @property
    def is_batched(self) -> bool:
        """Whether it was one of several in a job."""
        return self._frames is not None

    def frames(self) -> Iterator[Frame]:
        """Yield its output; of a job of its own it may have to be fetched from its host."""
        if self._frames is not None:
            return iter(self._frames)
        return iter(()) if self.result is None else self.result.logs()

    @property
    def stdout(self) -> str:
        """All of its standard output, as text; wrong UTF-8 shows as U+FFFD."""
        return only(self.frames(), STDOUT).decode(errors="replace")

    @property
    def stderr(self) -> str:
        """All of its standard error, as text."""
        return only(self.frames(), STDERR).decode(errors="replace")

    def get(self) -> str:
        """Return its output without the final newline, or raise why there is none."""
        if self.ok:
            return self.stdout.removesuffix("\n")
        raise self.error()

    def error(self) -> Exception:
        """Return the error for an item without success."""
        if self.record is not None and self.result is not None and not self.is_batched:
            return self.result.error(self.record)
        where = f" on {self.host}" if self.host else ""
        text = f"item {self.number} ({self.job}) {self.state.value}{where}: {self.why}"
        if self.state is JobState.CANCELLED:
            return JobCancelled(text, record=self.record)
        code = self.exit_code
        if code is None:
            code = 125 if self.signal is None else 128 + self.signal
        facts: dict[str, Any] = {"record": self.record, "log_tail": self.stderr[-2000:]}
        if self.reason == Reason.TIMEOUT:
            return JobTimedOut(text, exit_code=124, **facts)
        return JobFailed(text, exit_code=code, **facts)


def of_batch(result: JobResult, ran: Ran, text: str | None) -> ItemResult:
    """Return what a batch says of one of its items."""
    frames = [(STDOUT, ran.stdout), (STDERR, ran.stderr)]
    state = JobState.SUCCEEDED if ran.is_good else JobState.FAILED
    return ItemResult(
        ran.number,
        text,
        result.id,
        JobState.CANCELLED if ran.reason == "cancelled" else state,
        reason=ran.reason,
        host=ran.host,
        exit_code=ran.exit_code,
        signal=ran.signal,
        seconds=ran.seconds,
        why="" if ran.is_good else ran.failure,
        result=result,
        _frames=tuple(Frame(channel, 0.0, data) for channel, data in frames if data),
    )


def of_single(result: JobResult, number: int, text: str | None) -> ItemResult:
    """Return what became of an item that is a job of its own, which has ended."""
    record = result.record
    outcome = result._session.surely(result.outcome)
    state = record.state
    return ItemResult(
        number,
        text,
        result.id,
        state,
        reason=record.reason or "",
        host=record.host,
        exit_code=record.exit_code,
        signal=record.signal,
        seconds=0.0 if outcome is None else outcome.run_time,
        why="" if state is JobState.SUCCEEDED else _why(record, outcome),
        record=record,
        result=result,
    )


def _why(record: JobRecord, outcome: Outcome | None) -> str:
    if record.state is JobState.CANCELLED:
        return "cancelled" if record.reason != Reason.HALTED else "not run: the map was halted"
    if record.state is JobState.NEEDS_HUMAN:
        return f"waits for a person: {record.question or record.reason}"
    return failure(record, outcome)
