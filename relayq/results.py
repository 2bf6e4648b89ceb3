"""What became of a job: waiting for its end, and all of its output.

Waits block on keys of the job itself, look at the record again after every interruption, and
say when the broker goes and comes back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from relayq import clock
from relayq.dispatch import Dispatcher
from relayq.errors import (
    BrokerUnavailable,
    Conflict,
    JobCancelled,
    JobFailed,
    JobTimedOut,
    NeedsHuman,
    NoSuchJob,
    OutputUnavailable,
    WaitTimeout,
)
from relayq.model.jobs import JobRecord, JobState, Outcome, Reason, priority_number
from relayq.model.output import STDERR, STDOUT, Decoder, Frame, only, split
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.inputs import InputPiece
from relayq.store.logs import WINDOW, Piece

#: One blocking call's length; the store's own patience for an answer is longer.
_BLOCK = 2.5
_AGAIN = 0.5
#: How often a full window is looked at again.
_FULL = 0.02
#: After so many seconds without a byte a host is asked again for the output that it owes.
_ASK_AGAIN = 10.0
_GIVE_UP = 30.0

T = TypeVar("T")


@dataclass
class Session:
    """A store, the key to check what it says, and where remarks go."""

    store: Store
    signer: Signer
    say: Callable[[str], None]
    is_cut_off: bool = field(default=False)

    def patiently(self, ask: Callable[[], T], deadline: float | None) -> T | None:
        """Ask, over an outage if need be; None when the broker didn't answer this time."""
        try:
            answer = ask()
        except BrokerUnavailable as error:
            if not self.is_cut_off:
                self.say(f"{error.message}; waiting for it")
                self.is_cut_off = True
            if deadline is not None and clock.boottime() >= deadline:
                raise WaitTimeout("the broker can't be reached", hint="relayq status") from error
            clock.sleep(_AGAIN)
            return None
        if self.is_cut_off:
            self.say("the broker answers again")
            self.is_cut_off = False
        return answer


class JobResult:
    """A job that was submitted, and what becomes of it."""

    def __init__(
        self, session: Session, id: str, *, follow: bool = False, fresh: bool = False
    ) -> None:
        self.id = id
        self.reply = secrets.token_hex(8)
        self._session = session
        self._is_followed = follow
        #: Whether the submit made the job, and didn't find one with the same unique key.
        self.is_new = fresh
        self._is_fresh = fresh
        self._record: JobRecord | None = None
        self._outcome: Outcome | None = None

    def __repr__(self) -> str:
        known = self._record
        state = f"{known.state.value} on {known.target}" if known else "not looked at yet"
        return f"<JobResult {self.id} {state}>"

    @property
    def record(self) -> JobRecord:
        """The record, read again until it is final."""
        if self._record is None or not self._record.state.is_final:
            self._record = self._session.store.jobs.fetch(self.id)
        return self._record

    @property
    def state(self) -> str:
        """The state's name."""
        return self.record.state.value

    @property
    def reason(self) -> str | None:
        """Why it is in its final or parked state."""
        return self.record.reason

    @property
    def exit_code(self) -> int | None:
        """The command's own exit code, None before its end or after a signal."""
        return self.record.exit_code

    @property
    def host(self) -> str | None:
        """The host of its last attempt."""
        return self.record.host

    def ready(self) -> bool:
        """Whether it ended or waits for a person."""
        return not self.record.state.is_waitable

    def successful(self) -> bool:
        """Whether it succeeded."""
        return self.record.state is JobState.SUCCEEDED

    def failed(self) -> bool:
        """Whether it failed; a cancelled job didn't."""
        return self.record.state is JobState.FAILED

    def wait(self, timeout: float | None = None) -> JobRecord:
        """Wait until it ends or parks; raises WaitTimeout after `timeout` seconds, job unharmed."""
        deadline = None if timeout is None else clock.boottime() + timeout
        jobs = self._session.store.jobs
        # A job that was just submitted can't have ended so long ago that its end isn't heard.
        record = None if self._is_fresh else self._session.patiently(lambda: self.record, deadline)
        if record is not None and not record.state.is_waitable:
            return record
        self._is_fresh = False
        while True:
            block = _BLOCK if deadline is None else min(_BLOCK, deadline - clock.boottime())
            ask = partial(jobs.wait, [self.id], patience=max(block, 0.001))
            ended = self._session.patiently(ask, deadline)
            if ended and self.id in ended:
                self._keep(ended[self.id])
            record = self._session.patiently(lambda: self.record, deadline)
            if record is not None and not record.state.is_waitable:
                return record
            if deadline is not None and clock.boottime() >= deadline:
                raise WaitTimeout(
                    f"{self.id} hasn't ended after {timeout:g} s; it goes on",
                    hint=f"relayq wait {self.id}",
                )

    def get(self, timeout: float | None = None) -> Any:
        """Wait for success and return the result: for a command its output, as text.

        One final newline is left out. Raises JobFailed, JobTimedOut, JobCancelled or NeedsHuman;
        WaitTimeout after `timeout` seconds, and then the job goes on.
        """
        record = self.wait(timeout)
        if record.state is not JobState.SUCCEEDED:
            raise self.error(record)
        outcome = self.outcome()
        if outcome is not None and outcome.result is not None:
            return outcome.result
        return self.stdout.removesuffix("\n")

    def error(self, record: JobRecord) -> Exception:
        """Return the error for a job that ended, or parked, without success."""
        where = f" on {record.host}" if record.host else ""
        if record.state is JobState.CANCELLED:
            return JobCancelled(f"{self.id} was cancelled{where}", record=record)
        if record.state is JobState.NEEDS_HUMAN:
            return NeedsHuman(f"{self.id} waits for a person: {record.reason}", record=record)
        outcome = self.outcome()
        text = f"{self.id} failed{where}: {failure(record, outcome)}"
        hint = f"relayq logs {self.id}"
        tail = outcome.output if outcome is not None else b""
        end = only(split(tail)[0], STDERR).decode(errors="replace")[-2000:]
        if record.reason == Reason.TIMEOUT:
            return JobTimedOut(text, record=record, exit_code=124, log_tail=end, hint=hint)
        return JobFailed(
            text, record=record, exit_code=exit_status(record), log_tail=end, hint=hint
        )

    def outcome(self) -> Outcome | None:
        """Return the signed outcome of the last attempt, checked; None when there is none.

        A wrong signature raises BadSignature: nothing is built on what the fleet didn't sign.
        """
        if self._outcome is None or self._outcome.attempt != self.record.attempt:
            self._keep(self._session.store.jobs.outcome(self.id))
        kept = self._outcome
        return kept if kept is not None and kept.attempt == self.record.attempt else None

    def _keep(self, signed: bytes | None) -> None:
        if signed is not None:
            self._outcome = self._session.signer.check_outcome(signed, id=self.id)

    @property
    def stdout(self) -> str:
        """All of the standard output so far, as text; wrong UTF-8 shows as U+FFFD."""
        return only(self.logs(), STDOUT).decode(errors="replace")

    @property
    def stderr(self) -> str:
        """All of the standard error so far, as text."""
        return only(self.logs(), STDERR).decode(errors="replace")

    def logs(self, *, follow: bool = False) -> Iterator[Frame]:
        """Yield the output, frame by frame, in the order in which it was read.

        With `follow`, until the job ends. Always the whole output or OutputUnavailable: what the
        broker doesn't hold is fetched from the host.
        """
        if not self._is_followed or not follow:
            record = self.record
            if record.attempt == 0 and not follow:
                return iter(())
            outcome = None if record.state.is_waitable else self.outcome()
            if outcome is not None and outcome.is_whole:
                return iter(split(outcome.output)[0])
        return Following(self, self._session, live=follow).frames()

    def feed(
        self,
        read: Callable[[], bytes | None],
        *,
        position: int = 0,
        size: Callable[[], tuple[int, int] | None] = lambda: None,
    ) -> None:
        """Send standard input to a job that was submitted with `feed` or `tty`, until its end.

        `read` returns the next bytes, b"" at the end, None to have `size` asked, which returns the
        terminal's rows and columns when they have changed. `position` is where an input that
        somebody began goes on. Blocks while the job reads more slowly; returns early when the job
        has ended. Call it once, from a thread of its own beside `logs`.
        """
        inputs, taken = self._session.store.inputs, position
        while True:
            read_now = read()
            data = read_now or b""
            piece = InputPiece(position, data, is_end=read_now == b"", size=size())
            sent = None
            while sent is None:
                sent = self._session.patiently(partial(inputs.send, self.id, piece), None)
            position, taken = position + len(data), sent
            if piece.is_end:
                return
            while position - taken > WINDOW:
                if self._session.patiently(self.ready, None):
                    return
                clock.sleep(_FULL)
                taken = self._session.patiently(partial(inputs.taken, self.id), None) or taken

    def cancel(self) -> str:
        """Cancel it, durably: its whole process tree, also on a host that is asleep now.

        Returns "cancelled", "asked" while the host ends it, or the final state that it had.
        """
        word, _ = self._session.store.jobs.cancel(self.id)
        return word

    def retry(self, *, force: bool = False) -> JobResult:
        """Queue it again as a new attempt; `force` when a lost attempt is known to be gone."""
        Dispatcher(self._session.store, self._session.signer).retry(self.id, force=force)
        self._record = self._outcome = None
        return self

    def move(self, host: str | None = None, priority: int | str | None = None) -> JobResult:
        """Send it to another host ("any": whichever is free), or give it another priority.

        It keeps its place among those of its priority. Conflict when it has already started.
        """
        number = None if priority is None else priority_number(priority)
        Dispatcher(self._session.store, self._session.signer).move(
            self.id, host=host, priority=number
        )
        self._record = None
        return self

    def forget(self) -> None:
        """Delete all that the broker knows of it; Conflict unless it has ended."""
        [word] = self._session.store.jobs.forget([self.id])
        if word == "gone":
            raise NoSuchJob(f"no such job: {self.id}", hint="relayq ps -a")
        if word != "forgotten":
            raise Conflict(
                f"{self.id} is {word}; only an ended job can be forgotten",
                hint=f"relayq cancel {self.id}",
            )


def failure(record: JobRecord, outcome: Outcome | None) -> str:
    """Say in a few words why a job failed."""
    if outcome is not None and outcome.error:
        return f"{record.reason}: {outcome.error}"
    match record.reason:
        case Reason.EXIT:
            return f"exit {record.exit_code}"
        case Reason.SIGNAL:
            return f"signal {record.signal}"
        case Reason.TIMEOUT:
            limit = f" of {record.spec.timeout:g} s" if record.spec and record.spec.timeout else ""
            return f"time limit{limit}"
        case Reason.LOST:
            return f"its host was lost {record.losses} times"
        case other:
            return str(other)


def exit_status(record: JobRecord) -> int:
    """Return what a shell would call the job's exit status; see the README's table."""
    match record.state:
        case JobState.SUCCEEDED:
            return 0
        case JobState.CANCELLED:
            return JobCancelled.exit_code
        case JobState.NEEDS_HUMAN:
            return NeedsHuman.exit_code
    if record.reason == Reason.TIMEOUT:
        return 124
    if record.reason == Reason.EXIT and record.exit_code is not None:
        return record.exit_code
    if record.reason == Reason.SIGNAL and record.signal is not None:
        return 128 + record.signal
    return 125


class Following:
    """Reads a job's output as its host sends it."""

    def __init__(self, result: JobResult, session: Session, *, live: bool) -> None:
        self._result = result
        self._session = session
        self._live = live
        self._logs = session.store.logs
        self._since = b"0"
        self._position = 0
        self._attempt = 0
        self._asked_at = clock.boottime()
        self._decoder = Decoder()
        self._ended = False

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the attempt's output is whole."""
        if not self._result._is_followed:
            self._ask()
        try:
            while True:
                received = self._session.patiently(self._receive, None)
                if received is None:
                    # No silence of the host's; it is asked as soon as the broker is back.
                    self._asked_at = clock.boottime() - _ASK_AGAIN
                    continue
                for piece in received:
                    yield from self._take(piece)
                    if piece.end is not None and self._is_complete(piece):
                        return
                if self._ended:
                    rest = self._session.patiently(self._rest, None)
                    if rest is not None:
                        yield from rest
                        return
                if not received:
                    self._ask_later()
        finally:
            self._leave()

    def _receive(self) -> list[Piece]:
        pieces, outcome, ended = self._logs.receive(
            self._result.id,
            self._result.reply,
            since=self._since,
            position=self._position,
            patience=_BLOCK if not self._ended else 1.0,
            await_end=self._live and not self._ended,
        )
        if ended:
            self._result._keep(outcome)
        # An end that nobody announced to us, as after an outage, shows in the record.
        if not ended and not pieces and not self._ended:
            ended = not self._result.record.state.is_waitable
        if ended and not self._ended:
            self._ended, self._asked_at = True, clock.boottime()
        return pieces

    def _take(self, piece: Piece) -> Iterator[Frame]:
        self._since = piece.entry
        if piece.error is not None:
            raise self._unavailable(piece.error)
        if piece.attempt != self._attempt:
            self._attempt, self._position = piece.attempt, 0
            self._decoder.reset()
        if piece.position > self._position:
            raise self._unavailable(f"bytes {self._position} to {piece.position} are missing")
        fresh = piece.frames[self._position - piece.position :]
        self._position += len(fresh)
        self._asked_at = clock.boottime()
        return self._decoder.feed(fresh)

    def _is_complete(self, piece: Piece) -> bool:
        """Whether nothing can follow this last piece of an attempt."""
        record = self._session.patiently(lambda: self._result.record, None)
        if not self._live or record is None:
            return not self._live
        return not record.state.is_waitable and record.attempt == piece.attempt

    def _rest(self) -> list[Frame] | None:
        """Return what the outcome has beyond what was received, None if more must come."""
        record = self._result.record
        if record.state.is_waitable:
            self._ended = False
            return None
        outcome = self._result.outcome()
        if record.attempt == 0 or outcome is None:
            return []
        if self._attempt != outcome.attempt:
            self._attempt, self._position = outcome.attempt, 0
            self._decoder.reset()
        if outcome.is_whole:
            return list(self._decoder.feed(outcome.output[self._position :]))
        return [] if self._position >= outcome.output_bytes else None

    def _ask(self) -> None:
        """Ask the host of the current attempt to send its output to us."""
        record = self._result.record
        self._logs.ack(self._result.reply, self._position)
        if record.state.is_waitable:
            self._logs.follow(self._result.id, self._result.reply)
        if record.host is None or record.attempt == 0:
            return
        message = {"op": "follow", "job": record.id, "attempt": record.attempt}
        live = self._live and record.state.is_waitable
        message |= {"reply": self._result.reply, "position": self._position, "live": live}
        self._session.store.hosts.ask(record.host, message)

    def _ask_later(self) -> None:
        silent = clock.boottime() - self._asked_at
        if silent < _ASK_AGAIN:
            return
        if silent > _GIVE_UP and (self._ended or not self._live):
            raise self._unavailable("the host doesn't send it; is its worker up?")
        self._session.patiently(self._ask, None)

    def _unavailable(self, why: str) -> OutputUnavailable:
        known = self._result._record
        where = known.host if known is not None and known.host else "its host"
        return OutputUnavailable(
            f"the whole output of {self._result.id} can't be had from {where}: {why}",
            hint=f"relayq logs {self._result.id} shows what the broker kept",
        )

    def _leave(self) -> None:
        try:
            self._logs.unfollow(self._result.id, self._result.reply)
        except BrokerUnavailable:
            # The reply has a time to live; nothing is left to be done for it.
            return
