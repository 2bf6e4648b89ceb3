"""A fleet in virtual time: jobs come, wait where placement puts them, and run on free slots.

The choices are relayq's own (model/placement.py, model/strategies.py), and so is the rule of the
claim: a free slot takes the job that came first of all queues that its host serves. Of the idle
hosts the one that has waited longest hears of a new job first, as with Redis' blocking pop.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise

from relayq.model.placement import Constraints, HostFacts, lacks
from relayq.model.strategies import Strategy, choose


@dataclass(frozen=True, slots=True)
class Demand:
    """A sort of job: what it asks of its host, its share of the jobs, its mean work.

    Work is what a host of speed 1 does in a second.
    """

    name: str
    constraints: Constraints
    share: float
    work: float


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a load, numbered in the order in which they come."""

    number: int
    at: float
    work: float
    demand: int


@dataclass(slots=True, eq=False)
class Machine:
    """A simulated host; `load` is what placement would read of it."""

    facts: HostFacts
    slots: int
    speed: float
    demands: tuple[int, ...] = ()
    active: int = 0
    busy: float = 0.0
    load: float = 0.0
    waiting: deque[Job] = field(default_factory=deque)
    name: str = ""
    capabilities: frozenset[str] = frozenset()
    weight: float = 1.0

    def __post_init__(self) -> None:
        self.name, self.capabilities = self.facts.name, self.facts.capabilities
        self.weight = self.facts.weight

    @property
    def capacity(self) -> float:
        """The work that all of its slots do in a second."""
        return self.slots * self.speed

    def count(self) -> None:
        """Bring the load up to date."""
        self.load = (self.active + len(self.waiting)) / self.slots


@dataclass(slots=True)
class Run:
    """How a load went.

    Each job's wait and its time from submit to end, by its number; the end of the last job; how
    long each host was busy, on average of its slots.
    """

    waits: list[float]
    times: list[float]
    makespan: float
    busy: list[float]


class Simulation:
    """One load on one fleet by one strategy; `overflow` None binds a job to its host for good."""

    def __init__(
        self,
        fleet: Sequence[tuple[HostFacts, int, float]],
        demands: Sequence[Demand],
        *,
        strategy: Strategy,
        overflow: float | None,
        seed: int,
    ) -> None:
        self._machines = [Machine(*one) for one in fleet]
        self._able: list[list[Machine]] = []
        for number, demand in enumerate(demands):
            able = [one for one in self._machines if not lacks(demand.constraints, one.facts)]
            self._able.append(able)
            for machine in able:
                machine.demands += (number,)
        self._strategy, self._overflow = strategy, overflow
        # Not the numbers that the load was drawn with: sorts of jobs would have hosts of their own.
        self._chance = random.Random(f"choices {seed}")
        self._cursors = [0] * len(demands)
        self._wide: list[deque[Job]] = [deque() for _ in demands]
        # A dictionary for its order: who has waited longest comes first.
        self._idle = dict.fromkeys(self._machines)
        self._ends: list[tuple[float, int, Machine]] = []
        self._overdue: deque[tuple[float, Job, Machine]] = deque()
        self._waits: list[float] = []
        self._times: list[float] = []
        self._now = self._last = 0.0

    def run(self, jobs: Sequence[Job]) -> Run:
        """Let the jobs come and go until the last has ended."""
        self._waits, self._times = [-1.0] * len(jobs), [0.0] * len(jobs)
        assert all(before.at <= after.at for before, after in pairwise(jobs))
        coming = deque(jobs)
        never = float("inf")
        while coming or self._ends or self._overdue:
            end = self._ends[0][0] if self._ends else never
            come = coming[0].at if coming else never
            late = self._overdue[0][0] if self._overdue else never
            self._now = min(end, come, late)
            if end == self._now:
                self._end(heappop(self._ends)[2])
            elif come == self._now:
                self._submit(coming.popleft())
            else:
                self._widen(*self._overdue.popleft()[1:])
        return Run(
            self._waits, self._times, self._last, [one.busy / one.slots for one in self._machines]
        )

    def _submit(self, job: Job) -> None:
        cursor = self._cursors[job.demand]
        self._cursors[job.demand] += 1
        chance = self._chance.random()
        chosen = choose(self._able[job.demand], self._strategy, randomness=chance, cursor=cursor)
        if chosen is None:
            self._wait_anywhere(job)
            return
        chosen.waiting.append(job)
        chosen.count()
        if chosen in self._idle:
            self._claim(chosen)
        elif self._overflow is not None:
            self._overdue.append((self._now + self._overflow, job, chosen))

    def _wait_anywhere(self, job: Job) -> None:
        self._wide[job.demand].append(job)
        for machine in self._idle:
            if job.demand in machine.demands:
                self._claim(machine)
                return

    def _widen(self, job: Job, machine: Machine) -> None:
        if self._waits[job.number] < 0:
            # First come, first widened: what is still here is its host's oldest.
            assert machine.waiting.popleft() is job
            machine.count()
            self._wait_anywhere(job)

    def _end(self, machine: Machine) -> None:
        self._last = self._now
        machine.active -= 1
        machine.count()
        self._claim(machine)

    def _claim(self, machine: Machine) -> None:
        """Give one free slot the oldest job of the queues that its host serves, or note it idle."""
        oldest = machine.waiting
        for number in machine.demands:
            queue = self._wide[number]
            if queue and (not oldest or queue[0].number < oldest[0].number):
                oldest = queue
        if not oldest:
            self._idle[machine] = None
            return
        job = oldest.popleft()
        self._waits[job.number] = self._now - job.at
        duration = job.work / machine.speed
        self._times[job.number] = self._waits[job.number] + duration
        machine.active += 1
        machine.busy += duration
        machine.count()
        heappush(self._ends, (self._now + duration, job.number, machine))
        self._idle.pop(machine, None)
        if machine.active < machine.slots:
            self._idle[machine] = None
