"""A run of a workflow, for who asks: how far it is, waiting for its end, cancel and retry.

Everything is read from the broker: a run goes on without the process that began it, and any other
one can look at it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.dispatch import Dispatcher
from relayq.errors import Conflict, WaitTimeout
from relayq.model.jobs import JobRecord, JobState, Reason
from relayq.model.matrices import label
from relayq.results import JobResult
from relayq.store.flows import FlowRecord

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.session import Session

#: One blocking call's length, how many jobs it looks at, and the least time between two looks.
_BLOCK = 2.5
_HEARD = 200
_PAUSE = 0.1
#: States of a run, the worst first, and the exit code that each is.
EXIT_CODES = {"failed": 1, "cancelled": 130, "needs_human": 80, "succeeded": 0, "running": 75}
SKIPPED = "skipped"
_BAD = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class StepJob:
    """One job of a step: its label among them, its record, and whether a fan-out made it."""

    step: str
    label: str
    record: JobRecord
    is_child: bool = False

    @property
    def name(self) -> str:
        """What it is called: `test (linux, 3.12)`."""
        return f"{self.step} ({self.label})" if self.label else self.step

    @property
    def state(self) -> str:
        """The state in a word: that of its record, or skipped."""
        return state_of(self.record)


def state_of(record: JobRecord) -> str:
    """Return a job's state in a word; one that was skipped hasn't succeeded, for people."""
    is_skipped = record.state is JobState.SUCCEEDED and record.reason == Reason.SKIPPED
    return SKIPPED if is_skipped else record.state.value


class FlowRun:
    """A run of a workflow."""

    def __init__(self, session: Session, id: str) -> None:
        self.id = id
        self._session = session
        self._record: FlowRecord | None = None
        self._known: dict[str, JobRecord] = {}

    def __repr__(self) -> str:
        return f"<FlowRun {self.id}>"

    @property
    def record(self) -> FlowRecord:
        """What the broker keeps of the run as a whole: its name, its source, its graph."""
        if self._record is None:
            self._record = self._session.store.flows.fetch(self.id)
        return self._record

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.record.name

    @property
    def needs(self) -> Mapping[str, Sequence[str]]:
        """What each step needs, in the order of the file."""
        steps: Mapping[str, Any] = self.record.graph.get("steps", {})
        return {id: step["needs"] for id, step in steps.items()}

    def jobs(self) -> Sequence[StepJob]:
        """Return the run's jobs as they are now, in the order of the graph."""
        store = self._session.store
        states = store.flows.states(self.id)
        stale = [
            id
            for id, state in states.items()
            if id not in self._known or self._known[id].state is not state or not state.is_final
        ]
        self._known |= {record.id: record for record in store.jobs.fetch_many(stale)}
        known = [self._known[id] for id in states if id in self._known]
        return list(self._arranged(known))

    def _arranged(self, records: Sequence[JobRecord]) -> Iterator[StepJob]:
        """Yield the jobs step by step, those that a job became after it."""
        steps: Mapping[str, Any] = self.record.graph.get("steps", {})
        own = {id for step in steps.values() for id in step["jobs"]}
        by_step: dict[str, list[JobRecord]] = {id: [] for id in steps}
        for record in records:
            step = record.spec.step if record.spec is not None and record.spec.step else "?"
            by_step.setdefault(step, []).append(record)
        for step, found in by_step.items():
            labels = steps.get(step, {}).get("labels", {})
            for record in found:
                matrix = record.spec.matrix if record.spec is not None else {}
                is_child = record.id not in own
                text = label(matrix) if is_child else labels.get(record.id, "")
                yield StepJob(step, text, record, is_child)

    @property
    def steps(self) -> Mapping[str, Sequence[JobResult]]:
        """The jobs of each step, as results: their outputs, their text, their files."""
        found: dict[str, list[JobResult]] = {}
        for one in self.jobs():
            found.setdefault(one.step, []).append(JobResult(self._session, one.record.id))
        return found

    def __getitem__(self, step: str) -> JobResult:
        """Return the one job of a step."""
        results = self.steps[step]
        if len(results) != 1:
            raise Conflict(f"{step} is {len(results)} jobs: steps[{step!r}]")
        return results[0]

    @property
    def state(self) -> str:
        """What it is as a whole: running, succeeded, failed, cancelled or needs_human."""
        return whole_state(self.jobs(), is_cancelled=self._is_cancelled())

    @property
    def progress(self) -> float:
        """How far it is, in percent of its jobs."""
        return percent_of(self.jobs())

    def brief(self) -> tuple[str, Mapping[JobState, int]]:
        """Return its state, and how many of its jobs are in which, without reading all of them."""
        store = self._session.store
        states = store.flows.states(self.id)
        bad = [id for id, state in states.items() if state.is_final and state in _BAD]
        records = {record.id: record for record in store.jobs.fetch_many(bad)}
        fine = JobRecord("", "", JobState.SUCCEEDED, "", 0, 0.0)
        found = [records.get(id, replace(fine, id=id, state=state)) for id, state in states.items()]
        jobs = list(self._arranged(found))
        return whole_state(jobs, is_cancelled=self._is_cancelled()), Counter(states.values())

    def _is_cancelled(self) -> bool:
        return self._session.store.flows.fetch(self.id).cancelled_at is not None

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_change: Callable[[Sequence[StepJob]], None] = lambda jobs: None,
    ) -> str:
        """Wait until nothing of it goes on; returns its state then.

        `on_change` is told its jobs at first and whenever one has changed. Raises WaitTimeout after
        `timeout` seconds, and the run goes on.
        """
        deadline = None if timeout is None else clock.boottime() + timeout
        before: Sequence[Any] = ()
        while True:
            found = self._session.patiently(self.jobs, deadline)
            jobs: Sequence[StepJob] = found or []
            now = [(one.record.id, one.state, one.record.host, one.record.attempt) for one in jobs]
            if found is not None and now != before:
                before = now
                on_change(jobs)
            if found is not None and not is_going(jobs):
                return whole_state(jobs, is_cancelled=self._session.surely(self._is_cancelled))
            if deadline is not None and clock.boottime() >= deadline:
                raise WaitTimeout(
                    f"{self.id} hasn't ended after {timeout:g} s; it goes on",
                    hint=f"relayq flow show {self.id}",
                )
            self._listen(jobs, deadline)

    def _listen(self, jobs: Sequence[StepJob], deadline: float | None) -> None:
        """Wait for news: of the end of one of the jobs that can end next."""
        began = clock.boottime()
        ids = [one.record.id for one in jobs if one.record.state.is_waitable]
        # Those that wait for others end after these.
        first = [one.record.id for one in jobs if _may_end(one.record.state)]
        block = _BLOCK if deadline is None else min(_BLOCK, max(deadline - began, 0.001))
        heard = (first or ids)[:_HEARD]
        if heard:
            wait = partial(self._session.store.jobs.wait, heard, patience=block)
            self._session.patiently(wait, deadline)
        # A run of many short jobs isn't read anew for each, nor without end for an old news.
        now = clock.boottime()
        rest = began + _PAUSE - now
        clock.sleep(max(0.0, rest if deadline is None else min(rest, deadline - now)))

    def cancel(self) -> Sequence[tuple[str, str]]:
        """Cancel all of it: nothing further starts, and what runs ends with all its processes.

        Returns each job's id, and "cancelled", "asked" while its host ends it, or its final state.
        """
        return self._session.store.flows.cancel(self.id)

    def retry(self, *, force: bool = False) -> Sequence[str]:
        """Run again what failed or was cancelled, and what comes after that; what succeeded stays.

        Returns the ids of those jobs. Conflict while something of it goes on.
        """
        store = self._session.store
        ids = Dispatcher(store, self._session.signer).rerun(
            store.flows.members(self.id), flow=self.id, force=force
        )
        self._known = {id: record for id, record in self._known.items() if id not in ids}
        return ids


def _may_end(state: JobState) -> bool:
    return state in (JobState.QUEUED, JobState.RUNNING, JobState.LOST)


def is_going(jobs: Sequence[StepJob]) -> bool:
    """Whether anything goes on, or will without a person."""
    states = {one.record.state for one in jobs}
    if JobState.NEEDS_HUMAN in states:
        return any(state.is_waitable and state is not JobState.WAITING for state in states)
    return any(state.is_waitable for state in states)


def whole_state(jobs: Sequence[StepJob], *, is_cancelled: bool = False) -> str:
    """Return what a run is as a whole.

    It failed if a job did whose failure wasn't to be expected, or was cancelled by itself.
    """
    if is_going(jobs):
        return "running"
    # What a fan-out made is judged by the job that collects it.
    own = [one.record for one in jobs if not one.is_child]
    if any(record.state is JobState.NEEDS_HUMAN for record in (one.record for one in jobs)):
        return "needs_human"
    bad = [record for record in own if not (record.spec is not None and record.spec.is_lenient)]
    states = Counter(record.state for record in bad)
    if is_cancelled and states[JobState.CANCELLED]:
        return "cancelled"
    if states[JobState.FAILED]:
        return "failed"
    return "cancelled" if states[JobState.CANCELLED] else "succeeded"


def percent_of(jobs: Sequence[StepJob]) -> float:
    """Return how much of a run is done, in percent; a running job counts as far as it says."""
    if not jobs:
        return 100.0
    done = 0.0
    for one in jobs:
        progress = one.record.progress
        if one.record.state.is_final:
            done += 1
        elif progress is not None and progress.fraction is not None:
            done += progress.fraction
    return 100.0 * done / len(jobs)


def find(relay: Relay, text: str) -> FlowRun:
    """Return the run that a text names: an id, its beginning, a workflow's name, `last`."""
    session = relay.session()
    return FlowRun(session, session.store.flows.find(text))
