"""Waiting for many jobs at once: one blocking read for all of them, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from relayq import clock
from relayq.errors import WaitTimeout
from relayq.results import JobResult
from relayq.session import Session

#: So many jobs are waited for in a blocking read: one of the oldest ends next.
_WINDOW = 128
#: The ends of others are looked for by turns, so many in a read, once a second.
_SWEPT = 2_000
_SWEEP = 1.0
#: The records tell of an end that nobody announced to us, as after an outage.
_LOOK = 30.0
_BLOCK = 2.5
#: Ends that come one by one are taken together, when they come faster than this.
_TOGETHER = 0.01


class Ends:
    """The jobs of one connection that haven't ended yet, as far as is known here."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pending: dict[str, JobResult] = {}
        self._place = 0
        self._swept_at = self._taken_at = clock.boottime()
        self._looked_at = -_LOOK
        self._was_cut_off = False

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, results: Iterable[JobResult], *, fresh: bool = False) -> None:
        """Wait for these as well; `fresh` ones were submitted just now."""
        self._pending |= {one.id: one for one in results}
        if not fresh:
            self._looked_at = -_LOOK

    def drop(self, id: str) -> None:
        """Wait for this one no longer."""
        self._pending.pop(id, None)

    @property
    def window(self) -> Sequence[str]:
        """The jobs that most likely run now, or are the next."""
        return list(islice(self._pending, _WINDOW))

    def take(self, patience: float = _BLOCK) -> list[JobResult]:
        """Return what has ended or parked by now; waits up to `patience` seconds for the first."""
        if not self._pending:
            return []
        now = clock.boottime()
        session = self._session
        if session.is_cut_off:
            self._was_cut_off = True
        elif self._was_cut_off:
            self._was_cut_off, self._looked_at = False, -_LOOK
        if now - self._looked_at > _LOOK * (1 + len(self._pending) / 1_000):
            self._looked_at = now
            if found := self._ended_of(list(self._pending)):
                return found
        if now - self._swept_at > _SWEEP and len(self._pending) > _WINDOW:
            self._swept_at = now
            if found := self._read(self._next_to_sweep(), 0.001):
                return found
        if now - self._taken_at < _TOGETHER:
            clock.sleep(_TOGETHER - (now - self._taken_at))
        found = self._read(self.window, patience)
        self._taken_at = clock.boottime()
        return found

    def _next_to_sweep(self) -> list[str]:
        count = len(self._pending)
        self._place = _WINDOW if self._place >= count else self._place
        ids = list(islice(self._pending, self._place, self._place + _SWEPT))
        self._place += _SWEPT
        return ids

    def _read(self, ids: Sequence[str], patience: float) -> list[JobResult]:
        if not ids:
            return []
        jobs, session = self._session.store.jobs, self._session
        ended = session.patiently(partial(jobs.wait, ids, patience=max(patience, 0.001)), None)
        for id, signed in (ended or {}).items():
            self._pending[id].keep(signed)
        return self._ended_of(list(ended)) if ended else []

    def _ended_of(self, ids: Sequence[str]) -> list[JobResult]:
        """Return those of these that aren't waited for any longer, by their records."""
        found = []
        for start in range(0, len(ids), 1_000):
            some = ids[start : start + 1_000]
            fetch = partial(self._session.store.jobs.fetch_many, some)
            for record in self._session.patiently(fetch, None) or []:
                if record.state.is_waitable:
                    # Its end was that of an attempt before, and is forgotten soon.
                    self._pending[record.id] = self._pending.pop(record.id)
                else:
                    result = self._pending.pop(record.id)
                    result._record = record
                    found.append(result)
        return found


def as_completed(results: Iterable[JobResult], timeout: float | None = None) -> Iterator[JobResult]:
    """Yield these jobs as they end, or park for a person: each once, however often it is named.

    Raises WaitTimeout after `timeout` seconds; the jobs go on.
    """
    deadline = None if timeout is None else clock.boottime() + timeout
    parts: dict[int, Ends] = {}
    for one in results:
        session = one._session
        parts.setdefault(id(session), Ends(session)).add([one])
    while left := [ends for ends in parts.values() if len(ends)]:
        # Jobs of several fleets are waited for by turns.
        patience = _BLOCK if len(left) == 1 else 0.1
        for ends in left:
            rest = None if deadline is None else deadline - clock.boottime()
            yield from ends.take(patience if rest is None else max(0.0, min(patience, rest)))
        open_ = sum(len(ends) for ends in left)
        if open_ and deadline is not None and clock.boottime() >= deadline:
            raise WaitTimeout(f"{open_} jobs haven't ended after {timeout:g} s; they go on")


def first_ended(results: Sequence[JobResult], timeout: float | None = None) -> JobResult:
    """Wait until one of these jobs ends or parks, and return it: of several the earliest.

    Raises WaitTimeout after `timeout` seconds. All are jobs of one connection.
    """
    session = results[0]._session
    jobs, ids = session.store.jobs, [result.id for result in results]
    deadline = None if timeout is None else clock.boottime() + timeout
    while True:
        records = session.patiently(partial(jobs.fetch_many, ids), deadline) or []
        ended = [record for record in records if not record.state.is_waitable]
        if ended:
            first = min(ended, key=lambda record: record.finished_at or clock.now())
            return next(result for result in results if result.id == first.id)
        block = _BLOCK if deadline is None else min(_BLOCK, deadline - clock.boottime())
        if block <= 0:
            raise WaitTimeout(f"none of {len(ids)} jobs has ended after {timeout:g} s; they go on")
        session.patiently(partial(jobs.wait, ids, patience=block), deadline)


def gather(
    *results: JobResult, return_exceptions: bool = False, timeout: float | None = None
) -> list[Any]:
    """Wait for all of these jobs, and return what `get()` gives for each, in their order.

    The first that ends without success raises its error at once, and the others go on; with
    `return_exceptions` the errors are among what is returned. WaitTimeout after `timeout` seconds.
    """
    for one in as_completed(results, timeout):
        if not return_exceptions and not one.successful():
            raise one.error(one.record)
    return [_value(one, return_exceptions=return_exceptions) for one in results]


def _value(result: JobResult, *, return_exceptions: bool) -> Any:
    try:
        return result.get()
    except Exception as error:
        if not return_exceptions:
            raise
        return error
