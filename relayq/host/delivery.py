"""What became of an attempt, on its way to the broker: its outcome and the log of its output.

Without a broker an outcome waits here (and on the disk, for the next worker process) until a beat
is answered.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

from relayq import clock
from relayq.dispatch import TEMPLATE
from relayq.errors import BrokerUnavailable
from relayq.host import attempts
from relayq.host.attempts import ClaimNote
from relayq.host.process import ExitRecord, Shim
from relayq.kinds import Ended, Verdict, find
from relayq.model.jobs import JobState, Outcome, Reason, Token
from relayq.model.retries import RetryPolicy
from relayq.signing import Signer
from relayq.store import Store

log = logging.getLogger(__name__)

#: An output up to this size travels with the outcome: one call less, and no need of this host.
INLINE = 64 * 1024
#: Why a process ended whose job goes back to its queue: its host is to stop.
HAND_BACK = "hand_back"
#: Lost attempts in a row after which a job is a dead letter.
CRASH_LIMIT = 3
#: How often the head of an output is brought to the broker.
_HEAD_EVERY = 1.0
_UNKNOWN_KEY_DELAY = 60.0


@dataclass(eq=False)
class Attempt:
    """An attempt that this worker answers for until its outcome is delivered.

    `phase` is "claimed" until its process may start; `is_stale` once its lease moved on.
    """

    token: Token
    note: ClaimNote
    directory: Path
    phase: str = "claimed"
    shim: Shim | None = None
    is_stale: bool = False
    is_fed: bool = False
    log_sent: int = 0
    log_at: float = field(default_factory=clock.boottime)
    settled: threading.Event = field(default_factory=threading.Event)

    def has_ended(self, patience: float) -> bool:
        """Wait up to `patience` seconds for the end of the process; True when it is over."""
        if self.shim is None:
            return self.settled.wait(patience)
        return self.shim.wait(patience)


def judge(attempt: Attempt, record: ExitRecord, signer: Signer) -> Verdict:
    """Return what the end of an attempt's process means."""
    if record.reason == "cancel":
        return Verdict(JobState.CANCELLED, Reason.USER)
    if record.reason == HAND_BACK:
        return Verdict(JobState.QUEUED, HAND_BACK)
    if record.reason == Reason.TIMEOUT:
        return Verdict(JobState.FAILED, Reason.TIMEOUT, error=record.error)
    if record.status == "unstarted":
        return Verdict(JobState.FAILED, Reason.SPAWN, error=record.error)
    spec = signer.check_spec(attempt.note.signed, id=attempt.token.id)
    return find(spec.kind).kind.interpret(
        Ended(record.code, record.signal, record.reason, record.error)
    )


class Delivery:
    """Brings outcomes and logs to the broker; `on_settled` learns of each that is done."""

    def __init__(self, store: Store, signer: Signer, *, host: str, max_log: int) -> None:
        self._store = store
        self._signer = signer
        self._host = host
        self._room = max_log // 2
        self._waiting: list[tuple[Attempt, Verdict, ExitRecord | None]] = []
        self._lock = threading.Lock()

    def deliver(self, attempt: Attempt, verdict: Verdict, record: ExitRecord | None = None) -> None:
        """Give the broker the outcome, now or when it is back; then `attempt.settled` is set."""
        try:
            self._finish(attempt, verdict, record)
        except BrokerUnavailable as error:
            log.warning("%s ended; its result waits for the broker: %s", attempt.token.id, error)
            with self._lock:
                self._waiting.append((attempt, verdict, record))

    def deliver_waiting(self) -> None:
        """Give the broker the outcomes that waited for it."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for attempt, verdict, record in waiting:
            self.deliver(attempt, verdict, record)

    def lose(self, token: Token) -> None:
        """Report that nothing is left of an attempt which has no outcome."""
        word = self._store.leases.lose(token, template=TEMPLATE, crash_limit=CRASH_LIMIT)
        log.warning("nothing is left of %s: it is %s", token.id, word, extra={"job": token.id})

    def _finish(self, attempt: Attempt, verdict: Verdict, record: ExitRecord | None) -> None:
        token = attempt.token
        if verdict.state is JobState.QUEUED:
            self._give_back(attempt)
            return
        verdict, delay = self._retried(attempt, verdict)
        outcome = self._outcome(attempt, verdict, record)
        if not outcome.is_whole:
            self._send_rest(attempt)
        word = self._store.leases.finish(
            token,
            verdict.state,
            reason=verdict.reason,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            outcome=self._signer.sign_outcome(outcome),
            template=TEMPLATE,
            delay=delay,
        )
        log.info("%s is %s", token.id, word, extra={"job": token.id, "attempt": token.attempt})
        if word == "stale":
            self.lose(token)
        if attempt.directory.exists():
            attempts.mark_delivered(attempt.directory, keep=not outcome.is_whole)
        attempt.settled.set()

    def _give_back(self, attempt: Attempt) -> None:
        word = self._store.leases.release(attempt.token, template=TEMPLATE)
        log.info("gave %s back: %s", attempt.token.id, word, extra={"job": attempt.token.id})
        attempts.mark_delivered(attempt.directory, keep=False)
        attempt.settled.set()

    def _outcome(self, attempt: Attempt, verdict: Verdict, record: ExitRecord | None) -> Outcome:
        size = attempts.output_size(attempt.directory)
        output = attempts.read_output(attempt.directory, 0) if size <= INLINE else b""
        return Outcome(
            id=attempt.token.id,
            attempt=attempt.token.attempt,
            uid=attempt.token.uid,
            host=self._host,
            state=verdict.state,
            reason=verdict.reason,
            exit_code=record.code if record else None,
            signal=record.signal if record else None,
            error=verdict.error,
            result=verdict.result,
            output=output,
            output_bytes=size,
            dropped_bytes=record.dropped_bytes if record else 0,
            run_time=record.run_time if record else 0.0,
        )

    def _retried(self, attempt: Attempt, verdict: Verdict) -> tuple[Verdict, float | None]:
        """Return the verdict after the retry policy, and the delay until the retry."""
        if verdict.state is JobState.SCHEDULED:
            return verdict, _UNKNOWN_KEY_DELAY
        is_own_end = verdict.reason in (Reason.EXIT, Reason.SIGNAL)
        if verdict.state is not JobState.FAILED or not is_own_end:
            return verdict, None
        spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
        policy = RetryPolicy(retries=spec.retries)
        delay = policy.delay_after(attempt.note.failures + 1, jitter=random.random())
        if delay is None:
            return verdict, None
        return Verdict(JobState.SCHEDULED, verdict.reason, error=verdict.error), delay

    def send_head(self, attempt: Attempt) -> None:
        """Bring the head of the output to the broker, for when this host can't be asked."""
        if clock.boottime() - attempt.log_at < _HEAD_EVERY:
            return
        attempt.log_at = clock.boottime()
        frames = attempts.read_output(attempt.directory, attempt.log_sent, self._room)
        if not frames:
            return
        try:
            self._append(attempt, attempt.log_sent, frames)
        except BrokerUnavailable as error:
            log.debug("no broker for the log of %s: %s", attempt.token.id, error)

    def _append(self, attempt: Attempt, position: int, frames: bytes) -> None:
        self._store.logs.append(attempt.token, position, frames)
        attempt.log_sent = position + len(frames)

    def _send_rest(self, attempt: Attempt) -> None:
        """Bring what is missing of head and tail."""
        directory = attempt.directory
        while frames := attempts.read_output(directory, attempt.log_sent, self._room):
            self._append(attempt, attempt.log_sent, frames)
        position = attempts.tail_position(directory, attempt.log_sent, self._room)
        while frames := attempts.read_output(directory, position):
            self._append(attempt, position, frames)
            position += len(frames)
