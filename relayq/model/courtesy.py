"""When a host stands back for its owner: rules and readings give a decision. Pure.

A rule that objects holds back new work first and freezes what runs next; work goes on when nothing
has objected for `resume_after` seconds. Each of the two changes at most once in that time, so a
load at the threshold doesn't have the jobs flap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from relayq.hours import WeekSpan, week_hours

if TYPE_CHECKING:
    from relayq.config import Config

#: Why a host stands back; the first one that applies is named.
CAUSES = ("owner", "battery", "hours", "gate", "cpu", "temperature", "memory", "load")
#: What jumps about: one high value says nothing. All but the CPU of others is measured at every
#: fourth reading only.
_NOISY = {"cpu": 1, "temperature": 4, "memory": 4, "load": 4}
#: What our own jobs raise themselves: freezing them for it would thaw them at once.
_SOFT = frozenset({"memory", "load"})
_COOLER = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a host measured; None is what it can't measure or nobody asks about.

    `others` is the percent of all CPU that goes to processes which aren't relayq's, `load` the load
    average for each CPU, `memory` the percent of time that something waited for memory, `idle` the
    seconds since keyboard or mouse were used, `gate` what the gate has against it ("" is nothing).
    """

    others: float | None = None
    load: float | None = None
    memory: float | None = None
    battery: float | None = None
    is_on_battery: bool = False
    idle: float | None = None
    weekday: int = 0
    minute: int = 0
    temperature: float | None = None
    gate: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a host's owner configured; None is a rule that he didn't make."""

    cpu: float | None = 80.0
    resume_below: float = 60.0
    when_active: float | None = None
    on_battery: bool = False
    resume_above: float = 60.0
    hours: tuple[WeekSpan, ...] = ()
    hours_text: str = ""
    temperature: float | None = None
    memory: float | None = None
    load: float | None = None
    gate: str | None = None
    freezes: bool = True
    resume_after: float = 30.0
    readings: int = 3

    @classmethod
    def of(cls, config: Config) -> Rules:
        """Return the rules of a configuration.

        Where nobody but this machine's own user can submit, whose CPU it is needs no rule that
        he didn't make: `relayq run make` beside his own busy editor is to run.
        """
        worker, pause = config.worker, config.worker.pause
        is_given = config.origins.get("worker.cpu_threshold", "default") != "default"
        has_cpu_rule = worker.cpu_threshold < 100 and (is_given or config.broker_url is not None)
        return cls(
            cpu=float(worker.cpu_threshold) if has_cpu_rule else None,
            resume_below=float(min(pause.resume_below, worker.cpu_threshold)),
            when_active=pause.when_active,
            on_battery=pause.on_battery,
            resume_above=float(pause.resume_above),
            hours=week_hours(pause.hours) if pause.hours else (),
            hours_text=pause.hours or "",
            temperature=pause.temp,
            memory=pause.memory,
            load=pause.load,
            gate=pause.gate,
            freezes=pause.action == "freeze",
            resume_after=pause.resume_after,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a host takes new work and freezes what runs, and why."""

    takes_work: bool = True
    freezes: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Signal:
    """Something that is on or off; since when, and since when nothing keeps it on."""

    is_on: bool = False
    changed_at: float = -inf
    clear_since: float | None = None

    def turned(self, *, begins: bool, stands: bool, at: float, settle: float) -> _Signal:
        if not self.is_on:
            may_turn = begins and at - self.changed_at >= settle
            return _Signal(is_on=True, changed_at=at) if may_turn else self
        if stands:
            return replace(self, clear_since=None)
        clear_since = at if self.clear_since is None else self.clear_since
        if at - clear_since >= settle:
            return _Signal(is_on=False, changed_at=at)
        return replace(self, clear_since=clear_since)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the governor remembers from one reading to the next.

    `counts` says for how many readings each cause has stood, `heeded` which of them have held back
    work since it last went on: of these even less is too much.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    heeded: frozenset[str] = frozenset()
    reason: str = ""
    holds_back: _Signal = _Signal()
    freezes: _Signal = _Signal()

    @classmethod
    def of_frozen_jobs(cls) -> Memory:
        """Return the memory of a worker that finds jobs frozen: the first reading decides."""
        still_on = _Signal(is_on=True, clear_since=-inf)
        said = "its worker has just started"
        return cls({}, frozenset(CAUSES), said, holds_back=still_on, freezes=still_on)

    @property
    def decision(self) -> Decision:
        """What follows from all readings so far."""
        return Decision(
            takes_work=not self.holds_back.is_on,
            freezes=self.freezes.is_on,
            reason=self.reason if self.holds_back.is_on else "",
        )


def decide(before: Memory, reading: Reading, rules: Rules, at: float) -> Memory:
    """Take in a reading; `at` is its instant in seconds on a clock that never steps."""
    objections = dict(_objections(reading, rules, before.heeded))
    counts = {cause: before.counts.get(cause, 0) + 1 for cause in objections}
    firm = {cause for cause in objections if counts[cause] >= _patience(cause, rules)}
    lasting = {cause for cause in firm if counts[cause] > _patience(cause, rules)}
    standing = firm | (before.heeded & objections.keys())
    # Before the other one: what freezes has held back new work for a reading at least.
    freezes = before.freezes.turned(
        begins=rules.freezes and before.holds_back.is_on and bool(lasting - _SOFT),
        stands=rules.freezes and bool(standing - _SOFT),
        at=at,
        settle=rules.resume_after,
    )
    holds_back = before.holds_back.turned(
        begins=bool(firm), stands=bool(standing), at=at, settle=rules.resume_after
    )
    named = next((objections[cause] for cause in CAUSES if cause in standing), before.reason)
    heeded = before.heeded | firm if holds_back.is_on else frozenset[str]()
    return Memory(counts, heeded, named, holds_back, freezes)


def _patience(cause: str, rules: Rules) -> int:
    """Return after how many readings a cause holds back new work; the next one freezes."""
    return rules.readings * _NOISY[cause] if cause in _NOISY else 1


def _objections(
    reading: Reading, rules: Rules, heeded: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """Yield what speaks against running jobs now; what is heeded must be gone clearly."""
    yield from _of_owner(reading, rules)
    if reading.gate:
        yield "gate", f"its gate says no ({reading.gate})"
    bar = rules.resume_below if "cpu" in heeded else rules.cpu
    if _is_over(reading.others, bar if rules.cpu is not None else None):
        yield "cpu", f"others use {reading.others:.0f}% of its CPU"
    limit = rules.temperature
    if limit is not None and "temperature" in heeded:
        limit -= _COOLER
    if _is_over(reading.temperature, limit):
        yield "temperature", f"{reading.temperature:.0f} degrees warm"
    if _is_over(reading.memory, rules.memory):
        yield "memory", "short of memory"
    if _is_over(reading.load, rules.load):
        yield "load", f"load {reading.load:.1f} for each CPU"


def _of_owner(reading: Reading, rules: Rules) -> Iterator[tuple[str, str]]:
    if _is_over(rules.when_active, reading.idle):
        yield "owner", f"owner active (keyboard {max(0.0, reading.idle or 0.0):.0f}s ago)"
    if rules.on_battery and reading.is_on_battery:
        charge = reading.battery
        if charge is None or charge <= rules.resume_above:
            yield "battery", "on battery" if charge is None else f"on battery {charge:.0f}%"
    if any(span.covers(reading.weekday, reading.minute) for span in rules.hours):
        yield "hours", f"its owner's hours: {rules.hours_text}"


def _is_over(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
