"""What becomes of a map: each of its items as it ends, all of their outputs, the failed ones again.

An item is a job of its own, or one of several in a batch, whose output tells of each as it ends
(model/batches.py). Which jobs a map has is in their records: another process finds it by its group.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from relayq import clock, families
from relayq.dispatch import Dispatcher
from relayq.errors import BrokerUnavailable, WaitTimeout
from relayq.gathering import Ends
from relayq.mapitems import ItemResult, of_batch, of_single
from relayq.model import batches
from relayq.model.batches import Ran
from relayq.model.ends import failure
from relayq.model.jobs import JobRecord, JobState, Reason, Spec, new_id
from relayq.model.output import STDOUT
from relayq.results import JobResult
from relayq.session import Session

#: So many batches are followed at once; one that ended unseen is read when its turn comes.
_FOLLOWED = 16
_BLOCK = 0.1
_SELDOM = 2.5
#: How many records are asked for in one go.
_PAGE = 1_000


@dataclass(slots=True)
class _Unit:
    """A job with its items; `left` are those whose ends aren't known yet."""

    result: JobResult
    numbers: tuple[int, ...]
    is_batch: bool
    is_fresh: bool = True
    left: set[int] = field(default_factory=set)


#: What a thread that follows a batch has to say: items that ended, or were given back, or its end.
_Word = tuple[_Unit, Ran | tuple[int, ...] | JobRecord | Exception]


class MapRun:
    """A command for each of many inputs, as jobs of one group.

    Iterating yields what became of each item, in the order of the inputs if it is `ordered`, else
    as they end. All of it can be had again by `job.map_of(group)`.
    """

    def __init__(
        self, session: Session, id: str, group: str, *, inputs: Mapping[int, str], ordered: bool
    ) -> None:
        self.id = id
        self.group = group
        self.ordered = ordered
        self._session = session
        self._inputs = dict(inputs)
        self._units: dict[str, _Unit] = {}
        #: The job that an item is in, the last one if it ran again.
        self._homes: dict[int, _Unit] = {}
        self._done: dict[int, ItemResult] = {}
        self._ends = Ends(session)
        self._words: SimpleQueue[_Word] = SimpleQueue()
        self._batches: deque[_Unit] = deque()
        self._followers: list[threading.Thread] = []
        self._open_batches = 0
        self._is_closed = threading.Event()

    def __repr__(self) -> str:
        return f"<MapRun {self.group}: {len(self._done)} of {len(self)} items ended>"

    def __len__(self) -> int:
        return len(self._homes)

    @property
    def jobs(self) -> Sequence[JobResult]:
        """Its jobs, in the order of their submission."""
        return [unit.result for unit in self._units.values()]

    @property
    def ended(self) -> Mapping[int, ItemResult]:
        """The items whose ends are known, by their numbers; nothing is waited for."""
        return self._done

    @property
    def numbers(self) -> list[int]:
        """The numbers of its items."""
        return sorted(self._homes)

    @property
    def open(self) -> list[int]:
        """The numbers of the items whose ends aren't known yet."""
        return sorted(number for number in self._homes if number not in self._done)

    def open_jobs(self, most: int) -> list[str]:
        """Return the ids of the first jobs that have such items."""
        ids = (id for id, unit in self._units.items() if unit.left)
        return list(islice(ids, most))

    def input_of(self, number: int) -> str | None:
        """Return the input of an item, None where it isn't known."""
        return self._inputs.get(number)

    def add(self, specs: Iterable[Spec], *, fresh: bool = True) -> None:
        """Count these jobs as its own; `fresh` ones were submitted just now."""
        singles = []
        for spec in specs:
            numbers = tuple(batches.numbers_of(spec))
            is_batch = spec.kind == batches.KIND
            result = JobResult(self._session, spec.id, fresh=fresh)
            unit = _Unit(result, numbers, is_batch, fresh, set(numbers))
            self._units[spec.id] = unit
            for number in numbers:
                if (before := self._homes.get(number)) is not None:
                    before.left.discard(number)
                self._homes[number] = unit
            if is_batch:
                self._batches.append(unit)
                self._open_batches += 1
            else:
                singles.append(result)
        self._ends.add(singles, fresh=fresh)

    def __iter__(self) -> Iterator[ItemResult]:
        if not self.ordered:
            return self.as_completed()
        return self._in_order(self.as_completed())

    def _in_order(self, ends: Iterator[ItemResult]) -> Iterator[ItemResult]:
        numbers = iter(sorted(self._homes))
        awaited = next(numbers, None)
        for _ in ends:
            while awaited in self._done:
                yield self._done[awaited]
                awaited = next(numbers, None)
        while awaited is not None:
            yield self._done[awaited]
            awaited = next(numbers, None)

    def as_completed(self, timeout: float | None = None) -> Iterator[ItemResult]:
        """Yield what became of each item as they end; those that have ended already come first.

        Raises WaitTimeout after `timeout` seconds; the jobs go on.
        """
        deadline = None if timeout is None else clock.boottime() + timeout
        yield from list(self._done.values())
        while len(self._done) < len(self._homes):
            rest = _SELDOM if deadline is None else deadline - clock.boottime()
            if rest <= 0:
                left = len(self._homes) - len(self._done)
                raise WaitTimeout(
                    f"{left} items haven't ended after {timeout:g} s; they go on",
                    hint=f"relayq map --attach {self.group}",
                )
            yield from self.take(min(rest, _SELDOM))

    def take(self, patience: float) -> list[ItemResult]:
        """Return the items that ended since the last look; waits so many seconds for the first."""
        self._follow_batches()
        found = list(self._heard())
        if not found and len(self._ends):
            block = min(patience, _BLOCK) if self._open_batches else patience
            for result in self._ends.take(block):
                found += self._end_single(self._units[result.id])
        elif not found and self._open_batches:
            found += self._heard(patience)
        elif not found:
            # All that is left was given back, and isn't a job yet.
            clock.sleep(_BLOCK)
        return found

    def _heard(self, patience: float = 0.0) -> Iterator[ItemResult]:
        """Yield what the batches' followers have said, after a wait for the first word."""
        while True:
            try:
                unit, word = self._words.get(timeout=patience) if patience else self._next_word()
            except Empty:
                return
            patience = 0.0
            match word:
                case Exception():
                    raise word
                case Ran():
                    yield from self._note(
                        unit, of_batch(unit.result, word, self.input_of(word.number))
                    )
                case tuple():
                    self._move_out(unit, word)
                case _:
                    yield from self._end_batch(unit, word)

    def _next_word(self) -> _Word:
        return self._words.get_nowait()

    def _note(self, unit: _Unit, item: ItemResult) -> Iterator[ItemResult]:
        """Take an item's end in, if it is one that wasn't known."""
        if item.number in unit.left and self._homes.get(item.number) is unit:
            unit.left.discard(item.number)
            self._done[item.number] = item
            yield item

    def _move_out(self, batch: _Unit, numbers: Sequence[int]) -> None:
        """Wait for jobs of their own of these items, which a batch gave back."""
        for number in numbers:
            if number in batch.left:
                batch.left.discard(number)
                result = JobResult(self._session, batches.id_of(batch.result.id, number))
                unit = _Unit(result, (number,), False, False, {number})
                self._units[result.id] = self._homes[number] = unit
                self._ends.add([result], fresh=True)

    def _end_single(self, unit: _Unit) -> Iterator[ItemResult]:
        [number] = unit.numbers
        yield from self._note(unit, of_single(unit.result, number, self.input_of(number)))

    def _end_batch(self, unit: _Unit, record: JobRecord) -> Iterator[ItemResult]:
        """Say of the items that a batch left without a word what its end means for them."""
        self._open_batches -= 1
        outcome = self._session.surely(unit.result.outcome)
        said = outcome.result if outcome is not None and isinstance(outcome.result, dict) else {}
        self._move_out(unit, [n for n in said.get("given", ()) if isinstance(n, int)])
        yield from self._never_made(unit)
        failed = {int(number): str(why) for number, why in (said.get("failed") or {}).items()}
        for number in sorted(unit.left):
            state, why = record.state, record.reason or ""
            if (
                record.state is not JobState.CANCELLED
                and said
                and number not in said.get("left", ())
            ):
                # What it wrote was lost to a full disk; its report was not.
                why = failed.get(number, "")
                state = JobState.FAILED if number in failed else JobState.SUCCEEDED
            elif record.state is JobState.SUCCEEDED or not why:
                state, why = JobState.FAILED, "it ended without a word of it"
            elif record.state is JobState.FAILED:
                why = failure(record, outcome)
            yield from self._note(
                unit,
                ItemResult(
                    number,
                    self.input_of(number),
                    unit.result.id,
                    state,
                    reason=record.reason or "",
                    host=record.host,
                    why=why,
                    record=record,
                    result=unit.result,
                    _frames=(),
                ),
            )

    def _never_made(self, batch: _Unit) -> Iterator[ItemResult]:
        """Yield the items that were given back by a batch and became no job: it was cancelled."""
        ids = {batches.id_of(batch.result.id, number): number for number in batch.numbers}
        waiting = [id for id in ids if id in self._units and ids[id] not in self._done]
        if not waiting:
            return
        fetch = partial(self._session.store.jobs.fetch_many, waiting)
        known = {record.id for record in self._session.surely(fetch)}
        for id in waiting:
            if id not in known:
                self._ends.drop(id)
                number, text = ids[id], self.input_of(ids[id])
                gone = ItemResult(
                    number,
                    text,
                    batch.result.id,
                    JobState.CANCELLED,
                    reason=Reason.USER,
                    why="cancelled with its batch",
                    _frames=(),
                )
                yield from self._note(self._units[id], gone)

    # Threads that read what batches say

    def _follow_batches(self) -> None:
        self._followers = [one for one in self._followers if one.is_alive()]
        while self._batches and len(self._followers) < min(_FOLLOWED, self._open_batches):
            follower = threading.Thread(target=self._follow, name=f"map-{self.group}", daemon=True)
            self._followers.append(follower)
            follower.start()

    def _follow(self) -> None:
        unit = None
        try:
            while not self._is_closed.is_set():
                unit = self._batches.popleft()
                self._follow_one(unit)
        except IndexError:
            return
        except Exception as error:
            # Who waits for the ends of all items must not wait for ever.
            if unit is not None and not self._is_closed.is_set():
                self._words.put((unit, error))

    def _follow_one(self, unit: _Unit) -> None:
        while True:
            try:
                for word in _words_of(unit):
                    self._words.put((unit, word))
            except BrokerUnavailable:
                # Followed anew once it is back: what was told before isn't taken twice.
                unit.result = JobResult(self._session, unit.result.id)
                self._session.surely(lambda: unit.result.record)
            else:
                return

    def close(self) -> None:
        """Follow nothing any more; the jobs go on."""
        self._is_closed.set()

    # What is asked of it

    def wait(self, timeout: float | None = None) -> MapRun:
        """Wait until every item has ended."""
        for _ in self.as_completed(timeout):
            pass
        return self

    def results(
        self, *, return_exceptions: bool = False, timeout: float | None = None
    ) -> list[Any]:
        """Wait for all, and return what each item wrote, as text, in the order of the inputs.

        Raises the error of the first that failed, unless `return_exceptions` has each stand where
        its text would. WaitTimeout after `timeout` seconds.
        """
        self.wait(timeout)
        items = [self._done[number] for number in sorted(self._done)]
        if return_exceptions:
            return [one.get() if one.ok else one.error() for one in items]
        return [one.get() for one in items]

    @property
    def failed(self) -> list[ItemResult]:
        """The items without success, in their order; waits until all have ended."""
        self.wait()
        return [self._done[number] for number in sorted(self._done) if not self._done[number].ok]

    def cancel(self) -> int:
        """Cancel what has not ended; returns how many jobs those were."""
        open_ = [unit for unit in self._units.values() if unit.left]
        # The last ones first: each batch that is cancelled lets jobs before it start.
        ids = [unit.result.id for unit in reversed(open_)]
        self._session.surely(partial(families.cancel, self._session.store, ids))
        return len(open_)

    def retry_failed(self) -> MapRun:
        """Run the items without success again, also those that were cancelled; returns itself.

        An item that has a job of its own is tried again as that job; one of a batch gets one.
        """
        again = [one for one in self.failed if one.state.is_final]
        singles = [one for one in again if not one.is_batched]
        units = {one.job: self._homes[one.number] for one in again}
        rerun: list[str] = []
        dispatcher = Dispatcher(self._session.store, self._session.signer)
        for start in range(0, len(singles), _PAGE):
            ids = [one.job for one in singles[start : start + _PAGE]]
            rerun += dispatcher.rerun(ids)
        for one in again:
            del self._done[one.number]
        for id in rerun:
            unit = units[id]
            result = JobResult(self._session, id, fresh=True)
            self._units[id] = renewed = _Unit(result, unit.numbers, False, True, set(unit.numbers))
            self._homes |= dict.fromkeys(unit.numbers, renewed)
            self._ends.add([result], fresh=True)
        by_batch: dict[str, list[int]] = {}
        for one in again:
            if one.is_batched:
                by_batch.setdefault(one.job, []).append(one.number)
        self._submit_again(dispatcher, by_batch)
        return self

    def _submit_again(self, dispatcher: Dispatcher, by_batch: Mapping[str, list[int]]) -> None:
        """Submit items of batches that ended as jobs of their own."""
        specs: list[Spec] = []
        for id, numbers in by_batch.items():
            signed = self._session.store.jobs.signed_spec(id)
            batch = self._session.signer.check_spec(signed, id=id)
            again = batches.again(batch, numbers, [new_id() for _ in numbers])
            specs += [replace(one, signed_at=int(clock.now())) for one in again]
        if specs:
            dispatcher.submit(specs)
            self.add(specs)


def _words_of(unit: _Unit) -> Iterator[Ran | tuple[int, ...] | JobRecord]:
    """Yield what a batch says, then how it ended."""
    result, lines = unit.result, batches.Lines()
    told = 0
    has_ended = (
        not unit.is_fresh and not result._session.surely(lambda: result.record).state.is_waitable
    )
    for frame in result.logs(follow=not has_ended):
        if frame.channel == STDOUT:
            yield from lines.feed(frame.data)
        if len(lines.given) > told:
            yield tuple(lines.given[told:])
            told = len(lines.given)
    yield result.wait()
