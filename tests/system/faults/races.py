"""A cancel that races with whatever else happens to its job, and what must hold after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from relayq import clock
from relayq.errors import BrokerUnavailable
from relayq.model.jobs import JobRecord
from relayq.results import JobResult
from relayq.store import Store
from tests.system.faults.journal import Journal


@dataclass(frozen=True)
class Race:
    """A cancel, what was answered and when, and the record right after; None if that is unknown."""

    id: str
    word: str
    at: float
    after: JobRecord | None


def cancel(store: Store, result: JobResult) -> Race | None:
    """Cancel a job; None when nobody knows whether the broker heard of it."""
    try:
        word = result.cancel()
    except BrokerUnavailable:
        return None
    at = clock.boottime()
    try:
        return Race(result.id, word, at, store.jobs.fetch(result.id))
    except BrokerUnavailable:
        return Race(result.id, word, at, None)


def broken(
    ran: Iterable[Race], records: Mapping[str, JobRecord], journal: Journal
) -> Iterator[str]:
    """Say which acknowledged cancel didn't win, and what was started after one."""
    for race in ran:
        state = records[race.id].state
        if race.word not in ("cancelled", "asked"):
            if state != race.word:
                yield f"{race.id} was {race.word} when its cancel came, and is {state}"
        elif state != "cancelled":
            yield f"{race.id} is {state} after a cancel was {race.word}"
        late = [note for note in journal.notes("start", id=race.id) if note.at > race.at]
        for note in late if race.word in ("cancelled", "asked") else ():
            if not _had_begun(race, note.attempt):
                yield f"I4: {race.id} was started {note.at - race.at:.3f} s after {race}"


def _had_begun(race: Race, attempt: int) -> bool:
    """Tell whether an attempt could have been started, by the record, before the cancel came.

    Its process takes some time until it can say so, and all the time that its host then sleeps.
    """
    if race.after is None:
        return race.word == "asked"
    is_claimed = race.after.attempt == attempt and race.after.phase == "claimed"
    return attempt <= race.after.attempt and not is_claimed
