"""Whose turn it is: the jobs of a schedule are submitted, by any worker or by a person's wish.

A turn is one script, so it doesn't matter who takes it, how many do, or who dies meanwhile.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from relayq.config import Config
from relayq.dispatch import TEMPLATE, Dispatcher, wrong_key
from relayq.errors import BadSignature, Conflict, NoSuchSchedule, RelayqError
from relayq.model.jobs import Spec
from relayq.model.schedules import (
    Condition,
    Run,
    Schedule,
    ScheduleRecord,
    Step,
    by_hand,
    step,
)
from relayq.signing import Signer, UnknownKey
from relayq.store import Store
from relayq.store.schedules import Standing

log = logging.getLogger(__name__)

#: How often a turn that another one overtook is tried.
_TRIES = 5


def sign(signer: Signer, schedule: Schedule) -> bytes:
    """Return a schedule as signed bytes."""
    # In its own order, which is that of a workflow's steps.
    text = json.dumps(schedule.as_dict(), separators=(",", ":"))
    return signer.sign_note(_note(schedule.name), text.encode())


def check(signer: Signer, record: ScheduleRecord) -> Schedule:
    """Return the schedule that a person signed under this name.

    Raises `UnknownKey`, `BadSignature`, or ValueError for one that this version can't read.
    """
    text = signer.check_note(record.signed, name=_note(record.name))
    try:
        return Schedule.from_dict(json.loads(text))
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from error


def _note(name: str) -> str:
    return f"schedule:{name}"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a turn came to: the jobs that were submitted, and the seconds until the next turn."""

    jobs: Sequence[Spec] = ()
    wait: float | None = None


class Turns:
    """Takes the turns of schedules."""

    def __init__(self, store: Store, signer: Signer, config: Config, *, who: str) -> None:
        self._store = store
        self._signer = signer
        self._config = config
        self._who = who

    def take(self, name: str) -> Taken:
        """Submit what is due of a schedule, unless somebody else has done so by now."""
        try:
            standing = self._store.schedules.fetch(name)
        except NoSuchSchedule:
            return Taken()
        record = standing.record
        if record.next_at is None or record.standing is not Condition.ACTIVE:
            return Taken()
        try:
            schedule = check(self._signer, record)
            done = step(schedule, record, standing.unended, standing.now)
        except UnknownKey:
            # It's this machine that has another key.
            raise
        except BadSignature as error:
            self._refuse(record, error.message, for_good=True)
            return Taken()
        except (RelayqError, ValueError) as error:
            # A newer version wrote it, or a time zone isn't known here: another worker may do it.
            self._refuse(record, getattr(error, "message", str(error)), for_good=False)
            return Taken()
        if self._submit(record, done) != "done":
            return Taken()
        wait = None if done.due_at is None else max(0.0, done.due_at - standing.now)
        return Taken(done.jobs, wait)

    def run(self, name: str, *, force: bool = False) -> Run:
        """Submit a run of a schedule for a person, now; what comes next stays."""
        for _ in range(_TRIES):
            standing = self._store.schedules.fetch(name)
            schedule = self._checked(standing)
            done = by_hand(schedule, standing.record, standing.unended, standing.now, force=force)
            if not done.runs:
                before = " and ".join(done.going[-3:])
                raise Conflict(
                    f"{name} still runs: {before}",
                    hint=f"relayq schedule run --force {name}, or relayq wait {done.going[-1]}",
                )
            word = self._submit(standing.record, done)
            if word == "done":
                return done.runs[0]
        raise Conflict(f"somebody else changes {name} as well", hint=f"relayq schedule show {name}")

    def _checked(self, standing: Standing) -> Schedule:
        name = standing.record.name
        try:
            return check(self._signer, standing.record)
        except UnknownKey as error:
            raise wrong_key() from error
        except (BadSignature, ValueError) as error:
            why = error.message if isinstance(error, RelayqError) else str(error)
            raise Conflict(
                f"{name} isn't what somebody of this fleet signed: {why}",
                hint=f"relayq schedule add {name} ... --replace, or relayq schedule rm {name}",
            ) from error

    def _submit(self, record: ScheduleRecord, done: Step) -> str:
        """Submit a turn's jobs, on the hosts as they are known now: they wait for others."""
        dispatcher = Dispatcher(self._store, self._signer)
        specs, placements = dispatcher.locate(
            done.jobs,
            online_within=self._config.lease.length,
            balance=self._config.scheduler.balance,
            wait_for_host=True,
        )
        return self._store.schedules.recur(
            record,
            done,
            list(dispatcher.prepared(specs, placements=placements)),
            template=TEMPLATE,
            key_id=self._signer.key_id,
            who=self._who,
        )

    def _refuse(self, record: ScheduleRecord, why: str, *, for_good: bool) -> None:
        if not for_good and record.trouble == f"{self._who}: {why}":
            return
        log.warning("the schedule %s is left alone: %s", record.name, why)
        said = why if for_good else f"{self._who}: {why}"
        self._store.schedules.refuse(record, said, for_good=for_good)
