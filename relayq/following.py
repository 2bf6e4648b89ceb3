"""A job's output as its host sends it: all of it, over outages of host and broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from relayq import clock
from relayq.errors import BrokerUnavailable, OutputUnavailable
from relayq.model.jobs import JobRecord, Outcome
from relayq.model.output import Decoder, Frame
from relayq.session import Session

if TYPE_CHECKING:
    from relayq.store.logs import Piece

_BLOCK = 2.5
#: After so many seconds without a byte a host is asked again for the output that it owes.
_ASK_AGAIN = 10.0
_GIVE_UP = 30.0
#: How many pieces are read in one call, of up to 64 KiB each.
_PIECES = 16


class Followed(Protocol):
    """The job whose output is read; `is_followed` if its host sends it without being asked."""

    id: str
    reply: str
    is_followed: bool
    #: Attempts up to this one are over and told; 0 for all to be read.
    told: int
    #: Told the record each time that nothing comes for a while.
    on_silence: Callable[[JobRecord], None]

    @property
    def record(self) -> JobRecord:
        """The record, read again until it is final."""

    def outcome(self) -> Outcome | None:
        """Return the outcome of the last attempt."""

    def keep(self, signed: bytes | None) -> None:
        """Keep an outcome that came with the job's end."""


class Following:
    """Reads a job's output as its host sends it."""

    def __init__(self, result: Followed, session: Session, *, live: bool) -> None:
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
        self._pieces = _PIECES

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the attempt's output is whole."""
        if not self._result.is_followed:
            self._ask()
        try:
            while True:
                received = self._session.patiently(self._receive, None)
                if received is None:
                    # No silence of the host's; it is asked as soon as the broker is back.
                    self._asked_at = clock.boottime() - _ASK_AGAIN
                    # A link that breaks before a long answer is through would never get it.
                    self._pieces = 1
                    continue
                self._pieces = min(2 * self._pieces, _PIECES)
                for piece in received:
                    if piece.error is not None:
                        yield from self._instead_of(piece)
                        return
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
            count=self._pieces,
        )
        if ended:
            self._result.keep(outcome)
        # An end that nobody announced to us, as after an outage, shows in the record.
        if not ended and not pieces and not self._ended:
            record = self._result.record
            ended = not record.state.is_waitable
            self._result.on_silence(record)
        if ended and not self._ended:
            self._ended, self._asked_at = True, clock.boottime()
        return pieces

    def _take(self, piece: Piece) -> Iterator[Frame]:
        self._since = piece.entry
        if piece.attempt <= self._result.told:
            return iter(())
        if piece.attempt != self._attempt:
            self._attempt, self._position = piece.attempt, 0
            self._decoder.reset()
        if piece.position > self._position:
            raise self._unavailable(f"bytes {self._position} to {piece.position} are missing")
        fresh = piece.frames[self._position - piece.position :]
        self._position += len(fresh)
        self._asked_at = clock.boottime()
        return self._decoder.feed(fresh)

    def _instead_of(self, piece: Piece) -> list[Frame]:
        """Return what a host doesn't have, as the job has ended meanwhile: its outcome may."""
        rest = self._session.surely(self._rest)
        if rest is None:
            raise self._unavailable(str(piece.error))
        return rest

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
        if record.attempt <= self._result.told or outcome is None:
            return []
        if self._attempt != outcome.attempt:
            self._attempt, self._position = outcome.attempt, 0
            self._decoder.reset()
        if outcome.is_whole:
            return list(self._decoder.feed(outcome.output[self._position :]))
        return [] if self._position >= outcome.output_bytes else None

    def _ask(self) -> None:
        """Ask the host of the current attempt to send its output to us."""
        self._logs.ack(self._result.reply, self._position)
        if self._result.record.state.is_waitable:
            self._logs.follow(self._result.id, self._result.reply)
        # Looked at again: a claim just before that would tell nobody.
        record = self._result.record
        if record.host is None or record.attempt <= self._result.told:
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
        record = self._session.patiently(lambda: self._result.record, None)
        where = record.host if record is not None and record.host else "its host"
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
