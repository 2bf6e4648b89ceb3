"""What the jobs themselves say happened, and what must hold after any fault.

The invariants: I1 every acknowledged job has exactly one end, or waits for a person. I2 it ran as
often as its policy allows, for `ask` and `fail` never twice at a time. I3 no process of it is
left. I4 nothing starts after an acknowledged cancel. I5 no key is left over. I6 the output is
the one that was written. I7 every worker is up, and a new job runs on each within 10 s.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from relayq import clock
from relayq.client import Job
from relayq.model.jobs import JobRecord, JobState
from relayq.results import JobResult
from relayq.store import Store, connect
from tests.redis.consistency import problems
from tests.waiting import until

_WITNESS = Path(__file__).with_name("witness.py")
_AT_ONCE = 500


@dataclass(frozen=True)
class Note:
    """One line of the journal; `at` is on the boot clock."""

    word: str
    id: str
    attempt: int
    pid: int
    at: float


@dataclass(frozen=True)
class Promise:
    """What was acknowledged of a job."""

    id: str
    on_lost: str
    retries: int
    cancelled_at: float | None = None


class Journal:
    """Submits witnesses, and reads what they wrote."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.promises: dict[str, Promise] = {}
        #: What jobs with this gate wait for; `touch` lets them end.
        self.gate = directory / "gate"
        self._gates = {self.gate}
        self._reading = threading.Lock()
        self._read = 0
        self._notes: dict[str, list[Note]] = {}

    def release(self) -> None:
        """Let all end that wait for a gate, whatever became of their test."""
        for gate in self._gates:
            gate.touch()

    def command(
        self, seconds: float = 0.0, *, lines: int = 1, code: int = 0, gate: Path | None = None
    ) -> Sequence[str]:
        """Return a witness's command."""
        self._gates |= {gate} if gate else set()
        words = [str(self.directory), str(seconds), str(lines), str(code)]
        return [sys.executable, "-I", "-S", str(_WITNESS), *words, *([str(gate)] if gate else [])]

    def submit(
        self,
        job: Job,
        seconds: float = 0.0,
        *,
        lines: int = 1,
        code: int = 0,
        gate: Path | None = None,
        **options: Any,
    ) -> JobResult:
        """Submit a witness; what was acknowledged is kept."""
        command = self.command(seconds, lines=lines, code=code, gate=gate)
        result = job.run(command, **options)
        self.promise(result.id, options.get("on_lost", "retry"), options.get("retries", 0))
        return result

    def submit_many(self, job: Job, count: int, **options: Any) -> list[JobResult]:
        """Submit witnesses that end at once, in one call."""
        commands = [{"cmd": self.command(**options)}] * count
        results = list(job.submit_many(commands))
        for result in results:
            self.promise(result.id)
        return results

    def promise(self, id: str, on_lost: str = "retry", retries: int = 0) -> None:
        """Note that this job was acknowledged, whoever submitted it."""
        self.promises[id] = Promise(id, on_lost, retries)

    def cancel(self, result: JobResult) -> str:
        """Cancel a job, and note that it was acknowledged."""
        word = result.cancel()
        if word in ("cancelled", "asked"):
            kept = self.promises[result.id]
            self.promises[result.id] = Promise(
                kept.id, kept.on_lost, kept.retries, clock.boottime()
            )
        return word

    def notes(self, *words: str, id: str | None = None) -> list[Note]:
        """Return these words of this job, or of all; of one job in the order of their writing."""
        with self._reading:
            self._read_on()
            known = [self._notes.get(id, [])] if id is not None else list(self._notes.values())
            return [note for notes in known for note in notes if not words or note.word in words]

    def _read_on(self) -> None:
        """Read what was written since the last time: thousands of jobs are asked for one by one."""
        path = self.directory / "journal"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            raw = file.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            word, job, attempt, pid, at = line.split()
            note = Note(word, job, int(attempt), int(pid), float(at))
            self._notes.setdefault(job, []).append(note)

    def starts(self, id: str) -> int:
        """Return how often a job was started."""
        return len(self.notes("start", id=id))

    def started(self, result: JobResult, *, within: float = 15.0) -> None:
        """Wait until a job says that it started."""
        until(lambda: self.starts(result.id), within=within, what=f"{result.id} to start")

    def ran(self, result: JobResult, since: float) -> bool:
        """Tell whether a job ran at or after an instant of the boot clock."""
        return any(note.at >= since for note in self.notes(id=result.id))

    def overlaps(self, id: str) -> list[tuple[int, int, float]]:
        """Return which attempts ran at the same time, and for how many seconds."""
        spans: dict[tuple[int, int], tuple[float, float]] = {}
        for note in self.notes(id=id):
            since, _ = spans.get((note.attempt, note.pid), (note.at, note.at))
            spans[note.attempt, note.pid] = since, note.at
        ordered = sorted(spans.items(), key=lambda item: item[1])
        return [
            (one[0], other[0], round(min(span[1], later[1]) - later[0], 3))
            for number, (one, span) in enumerate(ordered)
            for other, later in ordered[number + 1 :]
            if later[0] < span[1]
        ]


def check_invariants(
    journal: Journal,
    job: Job,
    workers: Iterable[str] = (),
    *,
    within: float = 30.0,
    starts: int | None = None,
) -> dict[str, JobRecord]:
    """Wait until all promised jobs have ended, and check all that must hold; returns the records.

    `workers` are the hosts that must be up, `starts` is how often a job may have been started at
    most (by default what its policy allows).
    """
    __tracebackhide__ = True
    store = job.relay.session().store
    records = ended(store, journal.promises, within=within)
    broken = [*_one_end(journal, records), *_starts(journal, records, starts), *_cancels(journal)]
    broken += _outputs(journal, job, records)
    assert not broken, "\n".join(broken)
    until(lambda: not processes(journal.promises), what=f"no process of {len(records)} jobs")
    until(lambda: not unsound(store), what=lambda: f"a sound data set: {unsound(store)}")
    probe(job, workers)
    return records


def ended(store: Store, ids: Iterable[str], *, within: float) -> dict[str, JobRecord]:
    """Wait until these jobs have ended or wait for a person; return their records (I1)."""
    __tracebackhide__ = True
    wanted, records = list(dict.fromkeys(ids)), dict[str, JobRecord]()

    def left() -> dict[str, str]:
        # As many as are looked at in no time: when those have ended, the next.
        looked_at = [id for id in wanted if id not in records][:_AT_ONCE]
        found = {record.id: record for record in store.jobs.fetch_many(looked_at)}
        records.update((id, one) for id, one in found.items() if not one.state.is_waitable)
        return {
            id: found[id].state if id in found else "gone" for id in looked_at if id not in records
        }

    def has_ended() -> bool:
        return not left() and len(records) == len(wanted)

    until(
        has_ended,
        within=within,
        what=lambda: f"{len(wanted)} acknowledged jobs to end: {left()}",
    )
    return records


def unsound(store: Store) -> list[str]:
    """Return what is wrong with the data set."""
    # What Celery keeps beside its queues is its own; a key may expire while it is looked at.
    excused = ("k:_kombu", " is a none, ")
    # The client whose store this is may not list every key: it is asked as nobody in particular.
    port = store.connection.connection_pool.connection_kwargs["port"]
    with closing(connect(f"redis://127.0.0.1:{port}/0")) as whole:
        return [one for one in problems(whole) if not any(word in one for word in excused)]


def _one_end(journal: Journal, records: dict[str, JobRecord]) -> Iterator[str]:
    for id, record in records.items():
        promise, ends = journal.promises[id], journal.notes("end", id=id)
        if record.state is JobState.NEEDS_HUMAN and promise.on_lost != "ask":
            yield f"I1: {id} waits for a person, on_lost is {promise.on_lost}"
        if record.state is JobState.SUCCEEDED and not ends:
            yield f"I1: {id} succeeded and never came to its end"
        if len({(note.attempt, note.pid) for note in ends}) < len(ends):
            yield f"I1: {id} has two ends of one attempt: {ends}"


def _starts(journal: Journal, records: dict[str, JobRecord], most: int | None) -> Iterator[str]:
    for id, record in records.items():
        promise, count = journal.promises[id], journal.starts(id)
        is_once = promise.on_lost != "retry"
        allowed = most or (1 if is_once else 1 + record.losses) + promise.retries
        if count > allowed:
            yield f"I2: {id} (on_lost {promise.on_lost}) was started {count} times, not {allowed}"
        if record.state is JobState.SUCCEEDED and count == 0:
            yield f"I2: {id} succeeded and was never started"
        if is_once and (found := journal.overlaps(id)):
            yield f"I2: {id} (on_lost {promise.on_lost}) ran twice at a time: {found}"


def _cancels(journal: Journal) -> Iterator[str]:
    for id, promise in journal.promises.items():
        at = promise.cancelled_at
        late = [n for n in journal.notes("start", id=id) if at is not None and n.at > at]
        if late:
            yield f"I4: {id} was started {late[0].at - (at or 0):.3f} s after its cancel"


def _outputs(
    journal: Journal, job: Job, records: dict[str, JobRecord], most: int = 50
) -> Iterator[str]:
    whole = [one for one in records.values() if one.state is JobState.SUCCEEDED]
    for record in whole[:: max(1, len(whole) // most)]:
        written = journal.directory / f"{record.id}.{record.attempt}.out"
        if not written.exists():  # no witness
            continue
        read = job.fetch(record.id).stdout.encode()
        if hashlib.sha256(read).digest() != hashlib.sha256(written.read_bytes()).digest():
            size = written.stat().st_size
            yield f"I6: {record.id} wrote {size} bytes, {len(read)} were read, and they differ"


def processes(ids: Iterable[str]) -> list[int]:
    """Return the processes that carry one of these jobs' ids in their environment (I3)."""
    wanted = set(ids)
    found = []
    for process in psutil.process_iter():
        try:
            environ = process.environ()
        except (psutil.Error, OSError):
            continue
        if environ.get("RELAYQ_JOB_ID") in wanted and process.pid != os.getpid():
            found.append(process.pid)
    return found


def probe(job: Job, workers: Iterable[str] = (), *, within: float = 10.0) -> None:
    """Check that a new job runs within 10 s, on each of these hosts or on any (I7)."""
    __tracebackhide__ = True
    began = clock.boottime()
    probes = [job.run("echo probe", host=name) for name in list(workers) or [None]]
    for result in probes:
        assert result.get(timeout=within - (clock.boottime() - began)) == "probe", "I7"
