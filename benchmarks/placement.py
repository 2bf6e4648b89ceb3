"""The strategies of placement compared: 200 hosts and 100,000 jobs in virtual time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log
from pathlib import Path
from statistics import fmean

from benchmarks.bars import Bar, Panel, picture
from benchmarks.figures import Figures
from benchmarks.processes import Redis
from benchmarks.simulation import Demand, Job, Run, Simulation
from relayq.model.placement import OVERFLOW, HostFacts, constrain, lacks
from relayq.model.strategies import Strategy

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "placement.svg"
SEED = 4
#: How busy the steady stream keeps the fleet.
_BUSY = 0.8

#: Sort of host: how many of 200, slots, speed, capabilities.
_HOSTS = (
    ("pi", 80, 4, 0.3, ""),
    ("laptop", 60, 2, 1.0, "ffmpeg"),
    ("desktop", 40, 4, 1.3, "ffmpeg docker"),
    ("mac", 12, 2, 1.6, "ffmpeg xcode"),
    ("gpu", 8, 2, 1.5, "ffmpeg docker cuda"),
)
DEMANDS = (
    Demand("anything", constrain(), 0.55, 10.0),
    Demand("ffmpeg", constrain(needs="ffmpeg"), 0.25, 30.0),
    Demand("docker", constrain(needs="docker"), 0.12, 20.0),
    Demand("xcode", constrain(needs="xcode"), 0.04, 20.0),
    Demand("a laptop", constrain(on="laptop*"), 0.02, 10.0),
    Demand("cuda", constrain(needs="cuda"), 0.02, 30.0),
)
#: How unequal the jobs of one sort are: the work's logarithm has this standard deviation.
_SPREAD = 1.0

Fleet = Sequence[tuple[HostFacts, int, float]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to place a load, under the name that the figures show."""

    strategy: Strategy
    overflow: float | None

    @property
    def name(self) -> str:
        """The strategy, and whether its choice is for good."""
        if self.strategy is Strategy.PULL:
            return str(self.strategy)
        return f"{self.strategy}, {'for good' if self.overflow is None else 'widening'}"


def ways() -> list[Way]:
    """Return every strategy, those that choose early both for good and widening."""
    early = [strategy for strategy in Strategy if strategy is not Strategy.PULL]
    bound = [Way(strategy, overflow) for strategy in early for overflow in (OVERFLOW, None)]
    return [Way(Strategy.PULL, None), *bound]


def a_fleet(count: int) -> Fleet:
    """Return about `count` hosts; each weighs as much as its slots and its speed."""
    fleet = []
    for sort, of_200, slots, speed, can in _HOSTS:
        for number in range(max(1, round(of_200 * count / 200))):
            capabilities = frozenset(can.split())
            facts = HostFacts(f"{sort}{number:03}", capabilities=capabilities, weight=slots * speed)
            fleet.append((facts, slots, speed))
    return fleet


def a_load(count: int, rate: float | None) -> list[Job]:
    """Return jobs that come by chance, `rate` work a second; all at once where it is None."""
    chance = random.Random(SEED)
    shares = [demand.share for demand in DEMANDS]
    demands = chance.choices(range(len(DEMANDS)), weights=shares, k=count)
    jobs, at = [], 0.0
    mean = sum(demand.share * demand.work for demand in DEMANDS)
    for number, demand in enumerate(demands):
        middle = log(DEMANDS[demand].work) - _SPREAD**2 / 2
        if rate is not None:
            at += chance.expovariate(rate / mean)
        jobs.append(Job(number, at, chance.lognormvariate(middle, _SPREAD), demand))
    return jobs


def bound(fleet: Fleet, jobs: Sequence[Job]) -> float:
    """Return the time before which no placement whatever ends the load.

    For any set of demands their work is done by the hosts that can do any of them, and begins
    when it comes; and each job takes its time on the fastest host that it may run on.
    """
    able = [
        [place for place, (facts, _, _) in enumerate(fleet) if not lacks(d.constraints, facts)]
        for d in DEMANDS
    ]
    fastest = [max(fleet[place][2] for place in places) for places in able]
    longest = max(job.at + job.work / fastest[job.demand] for job in jobs)
    return max(longest, *_shared(fleet, able, jobs))


def _shared(fleet: Fleet, able: Sequence[Sequence[int]], jobs: Sequence[Job]) -> Iterator[float]:
    """Yield the bound that each set of demands makes, for the work from some instants on."""
    numbers = range(len(DEMANDS))
    sets = [chosen for size in numbers for chosen in combinations(numbers, size + 1)]
    capacities = {
        chosen: sum(
            fleet[place][1] * fleet[place][2] for place in set().union(*(able[n] for n in chosen))
        )
        for chosen in sets
    }
    work = [0.0] * len(DEMANDS)
    for count, job in enumerate(reversed(jobs)):
        work[job.demand] += job.work
        if count % 1000 == 0 or job.number == 0:
            yield from (
                job.at + sum(work[n] for n in chosen) / capacities[chosen] for chosen in sets
            )


def evenness(values: Sequence[float]) -> float:
    """Return Jain's index: 1 when all have as much, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def placement(
    figures: Figures, _: Redis, *, hosts: int, jobs: int, picture_to: Path | None
) -> None:
    """Place one load that comes at once and one that comes steadily, in each way."""
    fleet = a_fleet(hosts)
    capacity = sum(slots * speed for _, slots, speed in fleet)
    panels = []
    loads = {
        f"{jobs:,} jobs at once": a_load(jobs, None),
        f"{jobs:,} jobs, {_BUSY:.0%} busy": a_load(jobs, _BUSY * capacity),
    }
    for name, load in loads.items():
        ideal = bound(fleet, load)
        figures.add(f"{name}: last end", "floor", "s", ideal)
        runs = {way: _run(fleet, load, way) for way in ways()}
        for way, run in runs.items():
            _note(figures, name, way, run, load)
        panels.append(_panel(name, load, runs, ideal))
    if picture_to is not None:
        picture_to.write_text(picture(panels), encoding="utf-8")


def _run(fleet: Fleet, load: Sequence[Job], way: Way) -> Run:
    simulation = Simulation(fleet, DEMANDS, strategy=way.strategy, overflow=way.overflow, seed=SEED)
    return simulation.run(load)


def _note(figures: Figures, name: str, way: Way, run: Run, load: Sequence[Job]) -> None:
    figures.add(f"{name}: last end", way.name, "s", run.makespan)
    figures.add(f"{name}: submit to end, mean", way.name, "s", fmean(run.times))
    late = sorted(run.waits)[len(run.waits) * 99 // 100]
    figures.add(f"{name}: wait, p99", way.name, "s", late)
    waits: list[list[float]] = [[] for _ in DEMANDS]
    for job in load:
        waits[job.demand].append(run.waits[job.number])
    worst = max(fmean(one) for one in waits if one)
    figures.add(f"{name}: mean wait, the worst served need", way.name, "s", worst)
    busy = [seconds / run.makespan for seconds in run.busy]
    figures.add(f"{name}: evenness of the hosts' use", way.name, "of 1", evenness(busy))


def _panel(name: str, load: Sequence[Job], runs: dict[Way, Run], ideal: float) -> Panel:
    """Draw what counts: of a load that came at once its end, else how long each job takes."""
    if load[-1].at:
        title = f"{name}: from submit to end, mean (s)"
        values = {way: fmean(run.times) for way, run in runs.items()}
    else:
        title = f"{name}: until the last has ended (1 = ideal)"
        values = {way: run.makespan / ideal for way, run in runs.items()}
    bars = [
        Bar(way.name, value, is_strong=way.strategy is Strategy.PULL)
        for way, value in values.items()
    ]
    return Panel(title, bars)
