"""Schedules in virtual time: a fleet whose workers take turns, at instants that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from relayq.config import Config, load
from relayq.model.jobs import JobRecord, new_id
from relayq.model.schedules import Schedule, ScheduleRecord, check_schedule, first_of
from relayq.recurring import Taken, Turns, sign
from tests.redis.fleet import Fleet, spec


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@dataclass
class Recurrences:
    """Who adds schedules, and two workers that take their turns."""

    fleet: Fleet
    config: Config = field(default_factory=lambda: load({"RELAYQ_HOME": "/nonexistent"}))

    def set_clock(self, text: str, zone: str = "UTC") -> None:
        """Have it be a bit after that time for the broker."""
        self.fleet.clock.offset += at(text, zone) + 0.2 - self.fleet.now()

    def add(
        self, when: str, *, name: str = "nightly", replace: bool = False, **options: Any
    ) -> Schedule:
        """Add a schedule, as the client does."""
        now = self.fleet.now()
        given = {"zone": options.pop("tz", "UTC"), "since": now, "submitter": "ann@mac", **options}
        given.setdefault("overlap", "allow")
        jobs = given.pop("jobs", [given.pop("job", spec())])
        held = tuple(job.as_dict() for job in jobs)
        made = Schedule(name=name, uid=new_id(), when=when, jobs=held, **given)
        schedule = check_schedule(made)
        next_at, due_at = first_of(schedule, now)
        word = self.fleet.store.schedules.keep(
            name,
            sign(self.fleet.signer, schedule),
            key_id=self.fleet.signer.key_id,
            uid=schedule.uid,
            next_at=next_at,
            due_at=due_at,
            who="ann@mac",
            replace=replace,
        )
        assert word == ("replaced" if replace else "added")
        return schedule

    def turns(self, who: str = "pi4") -> Turns:
        return Turns(self.fleet.store, self.fleet.signer, self.config, who=who)

    def tick(self, who: str = "pi4") -> list[Taken]:
        """Do what a worker does at each tick."""
        words = self.fleet.tick()
        return [self.turns(who).take(name) for word, name in words if word == "recurs"]

    def record(self, name: str = "nightly") -> ScheduleRecord:
        return self.fleet.store.schedules.fetch(name).record

    def jobs(self, name: str = "nightly") -> list[JobRecord]:
        """Return the jobs of all runs, the oldest first."""
        return list(self.fleet.store.schedules.runs(name, 10_000))[::-1]

    def runs(self, name: str = "nightly") -> list[str]:
        """Return the instants of all runs, as their jobs were told."""
        return [job.spec.meta["instant"] for job in self.jobs(name) if job.spec is not None]

    def pause(self, name: str = "nightly") -> str:
        return self.fleet.store.schedules.pause(name, who="ann@mac")

    def resume(self, schedule: Schedule) -> str:
        next_at, due_at = first_of(schedule, self.fleet.now())
        return self.fleet.store.schedules.resume(
            schedule.name, next_at=next_at, due_at=due_at, who="ann@mac"
        )

    def through(self, begin: str, end: str, zone: str, *, every: float = 1800.0) -> list[str]:
        """Let time pass from one local time to another with a tick now and then."""
        self.set_clock(begin, zone)
        while self.fleet.now() < at(end, zone):
            self.tick()
            self.fleet.clock.advance(every)
        return self.runs()


class Slow(Turns):
    """A worker that stands still between what it saw and what it does."""

    goes_on: Callable[[], str]

    def look(self, name: str = "nightly") -> Slow:
        """See that a schedule is due, and decide."""

        def wait(record: Any, done: Any) -> str:
            self.goes_on = lambda: Turns._submit(self, record, done)
            return "stands still"

        self.goes_on = lambda: "nothing"
        self._submit = wait  # type: ignore[method-assign]
        self.take(name)
        return self
