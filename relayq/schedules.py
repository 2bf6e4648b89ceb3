"""Recurring jobs, for who asks: made, looked at, run now, paused, removed.

Who submits their jobs when it is time are the workers (`relayq.recurring`). Every command imports
this module; what knows of time zones only who asks for a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from relayq import clock
from relayq.errors import Conflict, RelayqError, Unreadable
from relayq.model.jobs import JobRecord, Spec, new_id
from relayq.parsing import duration

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.model.halts import Halt
    from relayq.model.schedules import Schedule, ScheduleRecord
    from relayq.results import JobResult
    from relayq.store.flows import FlowRecord

#: What a job that recurs can't have: it is for one job, or the schedule's own.
_UNFIT = {
    "after": "comes after other jobs",
    "after_any": "comes after other jobs",
    "with_job": "is with another one",
    "due_at": "has a start time of its own",
    "delay": "has a start time of its own",
    "unique": "has a unique key (overlap says what is done while one runs)",
    "group": "has a group of its own (it is in the schedule's, schedule-NAME)",
    "follow": "is followed",
}


class Planned(Protocol):
    """A run of a workflow that was checked and not queued: `flow.load("nightly.yml").check()`."""

    specs: list[Spec]
    halts: list[Halt]

    def record(self, submitter: str) -> FlowRecord:
        """Return what is kept of the run as a whole."""


class OfSchedules:
    """What a `Job` can do with what recurs."""

    relay: Relay

    #: What the client itself has.
    plan: Callable[..., Spec]
    fetch: Callable[[str], JobResult]
    asked_of_agent: Callable[..., dict[str, Any]]

    def schedule(
        self,
        name: str,
        when: str,
        cmd: str | Sequence[str] | None = None,
        *,
        kind: str | None = None,
        agent: str | None = None,
        tz: str | None = None,
        catch_up: str = "once",
        grace: float | str | None = None,
        overlap: str | None = None,
        jitter: float | str = 0.0,
        until: float | None = None,
        flow: Planned | None = None,
        paused: bool = False,
        replace: bool = False,
        **options: Any,
    ) -> RecurringJob:
        """Have a command run again and again: `job.schedule("backup", "daily at 3:00", "...")`.

        `when` is cron's five fields or words ("every 20m", "weekdays at 9:30", "monthly on 1 at
        4:00"), in the time zone `tz` (default: this machine's). After a time in which no worker was
        there `catch_up` makes up for nothing (skip), for the last instant (once), or for each
        (all), but for none that is more than `grace` seconds late (default: 60 for skip, else no
        limit). While the run before goes on, by `overlap` this one is left out (skip, the default),
        waits for its end (queue), takes its place (replace), or runs beside it (allow). Each run
        begins up to `jitter` seconds after its instant. Nothing comes after `until` (Unix seconds),
        nor while it is `paused`. `replace` changes the one of that name.

        The rest is as for `submit`; with an `agent`, `cmd` is its prompt, and with a `kind`, the
        payload's fields are keywords. A workflow recurs as `flow=flow.load("nightly.yml").check()`.
        A run's commands have the variables RELAYQ_SCHEDULE and RELAYQ_INSTANT.
        """
        from relayq.dispatch import wrong_key
        from relayq.model.schedules import first_of
        from relayq.recurring import sign

        session = self.relay.session()
        now = session.store.schedules.now()
        schedule = self.plan_schedule(
            name,
            when,
            cmd,
            kind=kind,
            agent=agent,
            tz=tz,
            catch_up=catch_up,
            grace=grace,
            overlap=overlap,
            jitter=jitter,
            until=until,
            flow=flow,
            since=now,
            **options,
        )
        next_at, due_at = first_of(schedule, now)

        def keep() -> str:
            return session.store.schedules.keep(
                name,
                sign(session.signer, schedule),
                key_id=session.signer.key_id,
                uid=schedule.uid,
                next_at=next_at,
                due_at=due_at,
                who=self.relay.submitter,
                replace=replace,
                paused=paused,
            )

        word = keep()
        if word == "wrong_key" and session.signer.ring.renew():
            word = keep()
        if word == "wrong_key":
            raise wrong_key()
        if word == "exists":
            raise Conflict(
                f"there is a schedule {name} already",
                hint=f"relayq schedule show {name}; to change it: --replace",
            )
        return RecurringJob(self, name, is_new=word == "added")

    def plan_schedule(
        self,
        name: str,
        when: str,
        cmd: str | Sequence[str] | None = None,
        *,
        kind: str | None = None,
        agent: str | None = None,
        tz: str | None = None,
        catch_up: str = "once",
        grace: float | str | None = None,
        overlap: str | None = None,
        jitter: float | str = 0.0,
        until: float | None = None,
        flow: Planned | None = None,
        since: float | None = None,
        **options: Any,
    ) -> Schedule:
        """Check what `schedule` would be asked, and return what it would keep.

        The broker is asked, and connected to, only for a host that is named. It counts from
        `since` on (Unix seconds), by default from now.
        """
        from relayq.model.schedules import Schedule, check_schedule

        if flow is None:
            specs = [self._recurring_spec(name, cmd, kind=kind, agent=agent, **options)]
        elif cmd is not None or kind or agent or options:
            raise RelayqError("a workflow's jobs have their options in it")
        else:
            specs = list(flow.specs)
        _check_files(specs)
        return check_schedule(
            Schedule(
                name=name,
                uid=new_id(),
                when=when,
                jobs=tuple(spec.as_dict() for spec in specs),
                zone=tz or clock.zone(),
                # In whole seconds: people read the instants that are counted from there.
                since=float(int(clock.now() if since is None else since)),
                catch_up=catch_up,
                grace=None if grace is None else _seconds("grace", grace),
                overlap=overlap or ("queue" if catch_up == "all" else "skip"),
                jitter=_seconds("jitter", jitter),
                until=until,
                submitter=self.relay.submitter,
                flow=None if flow is None else _kept(flow, self.relay.submitter),
            )
        )

    def recurring(self, name: str) -> RecurringJob:
        """Find a schedule by its name; one that can't be read can still be removed."""
        with suppress(Unreadable):
            self.relay.session().store.schedules.fetch(name)
        return RecurringJob(self, name)

    def schedules(self) -> Sequence[RecurringJob]:
        """Return all schedules: what comes next first."""
        records = self.relay.session().store.schedules.list()
        return [RecurringJob(self, record.name, record=record) for record in records]

    def _recurring_spec(
        self, name: str, cmd: Any, *, kind: str | None, agent: str | None, **options: Any
    ) -> Spec:
        """Return what each run is made of, checked as a submit would be."""
        from relayq.model.schedules import check_schedule_name

        check_schedule_name(name)
        for option, what in _UNFIT.items():
            if options.get(option) not in (None, (), [], "", 0, 0.0, False):
                raise RelayqError(f"a job that recurs can't be one that {what}")
        waits = options.pop("wait_for_host", False)
        asked: Mapping[str, Any] = options
        if agent is not None:
            kind, asked = kind or "run_agent", self.asked_of_agent(agent, prompt=cmd, **options)
        elif cmd is not None:
            asked = {"cmd": cmd if isinstance(cmd, str) else list(cmd), **options}
        spec = self.plan(kind or "run_command", wait_for_host=waits, **asked)
        return spec if spec.name else replace(spec, name=name)


def _check_files(specs: Sequence[Spec]) -> None:
    from relayq.model.files import FileIn

    files = (FileIn.from_dict(file) for spec in specs for file in spec.files_in)
    if not all(file.is_url for file in files):
        raise RelayqError(
            "a job that recurs takes along only what has a URL: files of this machine would "
            "be kept for its first run only"
        )


def _kept(flow: Planned, submitter: str) -> dict[str, Any]:
    """Return what a schedule has to know of a workflow, beside its jobs."""
    record = flow.record(submitter)
    names = ("id", "name", "source", "graph", "submitter", "inputs")
    halts = [[halt.name, halt.limit, halt.counted, halt.way] for halt in flow.halts]
    return {**{name: getattr(record, name) for name in names}, "halts": halts}


def _seconds(what: str, given: float | str) -> float:
    try:
        seconds = duration(given) if isinstance(given, str) else float(given)
    except ValueError as error:
        raise RelayqError(f"{what}: {error}, got {given!r}") from error
    if seconds < 0:
        raise RelayqError(f"{what} can't be shorter than 0 s")
    return seconds


class RecurringJob:
    """A schedule: what is known of it, and what can be done with it."""

    def __init__(
        self,
        job: OfSchedules,
        name: str,
        *,
        is_new: bool = False,
        record: ScheduleRecord | None = None,
    ) -> None:
        self._job = job
        self.name = name
        #: Whether it was added, and replaced none.
        self.is_new = is_new
        self._record = record

    def __repr__(self) -> str:
        return f"RecurringJob({self.name!r})"

    @property
    def record(self) -> ScheduleRecord:
        """What is stored of it, as it was when it was found; see `refresh`."""
        return self._record or self.refresh()

    @property
    def schedule(self) -> Schedule:
        """What recurs and when, its signature checked."""
        from relayq.recurring import check

        session = self._job.relay.session()
        try:
            return check(session.signer, self.record)
        except ValueError as error:
            raise RelayqError(f"{self.name} can't be read here: {error}") from error

    def refresh(self) -> ScheduleRecord:
        """Look again."""
        self._record = self._job.relay.session().store.schedules.fetch(self.name).record
        return self._record

    def next(self, count: int = 1) -> Sequence[float]:
        """Return the next instants (Unix seconds): none while it is paused, or after its end."""
        from relayq.model.timing import preview

        record = self.record
        if record.next_at is None or record.paused_at is not None:
            return []
        schedule = self.schedule
        found = [record.next_at, *preview(schedule.timing, record.next_at, count - 1)]
        return [at for at in found if schedule.until is None or at <= schedule.until]

    def runs(self, count: int = 10) -> Sequence[JobRecord]:
        """Return the records of its newest runs, the newest first; none of a workflow's.

        Those are `flow.fetch(id)` for the ids of `record.recent`.
        """
        return self._job.relay.session().store.schedules.runs(self.name, count)

    def run(self, *, force: bool = False) -> JobResult:
        """Run it now, by its own rules for overlaps, or in spite of them (`force`)."""
        if self.schedule.flow is not None:
            raise RelayqError(f"{self.name} is a workflow: flow.fetch(job.recurring(...).start())")
        return self._job.fetch(self.start(force=force))

    def start(self, *, force: bool = False) -> str:
        """Run it now, as `run` does; returns the id of its job, or of a workflow's run."""
        from relayq.recurring import Turns

        relay, self._record = self._job.relay, None
        session = relay.session()
        turns = Turns(session.store, session.signer, session.config, who=relay.submitter)
        return turns.run(self.name, force=force).id

    def pause(self) -> bool:
        """Have nothing come of it until `resume`; False if it was paused already."""
        relay = self._job.relay
        self._record = None
        return relay.session().store.schedules.pause(self.name, who=relay.submitter) == "paused"

    def resume(self) -> bool:
        """Have it come again, from now on; False if it wasn't paused."""
        from relayq.model.schedules import first_of

        relay, self._record = self._job.relay, None
        store = relay.session().store
        now = store.schedules.now()
        next_at, due_at = first_of(self.schedule, now)
        word = store.schedules.resume(
            self.name, next_at=next_at, due_at=due_at, who=relay.submitter
        )
        self._record = None
        return word == "resumed"

    def remove(self) -> None:
        """Delete it; the jobs of its runs stay."""
        relay = self._job.relay
        relay.session().store.schedules.drop(self.name, who=relay.submitter)
