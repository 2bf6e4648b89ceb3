"""What became of an attempt, on its way to the broker: its outcome and the log of its output.

Without a broker an outcome waits here (and on the disk, for the next worker process) until a beat
is answered.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from relayq import clock
from relayq.config import Config
from relayq.dispatch import TEMPLATE
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.host import attempts, outputs, reports, returned
from relayq.host.attempts import ClaimNote
from relayq.host.cargo import Cargo
from relayq.host.process import ExitRecord, Shim
from relayq.host.returned import Returned
from relayq.host.stages import AWAY
from relayq.kinds import Ended, Verdict, find
from relayq.model.accounts import AccountPause, Usage
from relayq.model.jobs import FINAL, JobState, Outcome, Reason, Spec, Token
from relayq.model.placement import is_fit_elsewhere, queue_of
from relayq.model.retries import RetryPolicy, decide, delay_after_fault
from relayq.model.sessions import Session
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.leases import Further

log = logging.getLogger(__name__)

#: An output up to this size travels with the outcome: one call less, and no need of this host.
INLINE = 64 * 1024
#: Why a process ended whose job goes back to its queue: its host is to stop.
HAND_BACK = "hand_back"
#: Ends that say by themselves what they mean.
_LIMITS = frozenset({Reason.TIMEOUT, Reason.OOM, Reason.OUTPUT})
#: Why a process didn't start, but for what its job asks for.
_UNSTARTED = {"host": Reason.HOST, "files": Reason.FILES, AWAY: Reason.FILES}
_NAMED = {"memory": "memory", "processes": "process"}
#: How often the head of an output is brought to the broker.
_HEAD_EVERY = 1.0
_UNKNOWN_KEY_DELAY = 60.0
_ENDS = FINAL | {JobState.NEEDS_HUMAN}
_OF_A_LOGIN = ("_KEY", "_TOKEN", "_URL", "_HOME", "_DIR")
#: What a run can only come to with an account that is logged in.
_LOGGED_IN = frozenset(
    {
        None,
        "needs_review",
        "usage_limit",
        "rate_limited",
        "max_turns",
        "budget",
        "refused",
        "output_limit",
        "context_overflow",
    }
)


@dataclass(eq=False)
class Attempt:
    """An attempt that this worker answers for until its outcome is delivered.

    `phase` is "claimed" until its process may start; `is_stale` once its lease moved on; `pause`
    says why its processes stand still, and is empty while they run. At `good_until` its spec is too
    old to start, 0 where this worker adopted it. Files of a job that `has_files`
    travel with it. `waited_at` is when its job last waited for jobs of its own, on the boot clock.
    """

    token: Token
    note: ClaimNote
    directory: Path
    phase: str = "claimed"
    shim: Shim | None = None
    is_stale: bool = False
    is_fed: bool = False
    has_files: bool = False
    pause: str = ""
    is_adopted: bool = False
    waited_at: float = -math.inf
    good_until: float = 0.0
    about: dict[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
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
    if record.reason == HAND_BACK:
        return Verdict(JobState.QUEUED, HAND_BACK)
    if record.status == "unstarted":
        if record.reason == "cancel":
            return Verdict(JobState.CANCELLED, Reason.USER)
        reason = _UNSTARTED.get(record.reason, Reason.SPAWN)
        return Verdict(JobState.FAILED, reason, error=record.error)
    report = reports.read(attempt.directory)
    if report is None and record.reason == "cancel":
        return Verdict(JobState.CANCELLED, Reason.USER)
    if report is None and record.reason in _LIMITS:
        return Verdict(JobState.FAILED, record.reason, error=record.error)
    spec = signer.check_spec(attempt.note.signed, id=attempt.token.id)
    verdict = find(spec.kind).kind.interpret(
        Ended(
            record.code,
            record.signal,
            record.reason,
            record.error,
            report=report,
            failures=attempt.note.failures,
            fallbacks=bool(_next_queue(spec, attempt.note.account)),
            at=clock.now(),
            jitter=random.random(),
        )
    )
    verdict = _overruled(verdict, record)
    if attempt.has_files:
        verdict = returned.judged(attempt.directory, verdict)
    return outputs.judged(attempt.directory, verdict)


def _overruled(verdict: Verdict, record: ExitRecord) -> Verdict:
    """Return the verdict on a process that was ended: what it reported counts, not how it ended."""
    if record.reason == "cancel":
        state, reason, error = JobState.CANCELLED, str(Reason.USER), None
    elif record.reason in _LIMITS:
        state, reason, error = JobState.FAILED, record.reason, record.error
    else:
        return verdict
    return Verdict(
        state,
        reason,
        result=verdict.result,
        error=error,
        session=verdict.session,
        usage=verdict.usage,
    )


def _next_queue(spec: Spec, account: str) -> str:
    """Return the queue for the accounts that the job names after this one, "" if none is left."""
    if account not in spec.accounts:
        return ""
    # Not those before it: two agents that aren't logged in would send it to and fro for ever.
    left = spec.accounts[spec.accounts.index(account) + 1 :]
    return queue_of(replace(spec.constraints, accounts=left)) if left else ""


class Again(NamedTuple):
    """Whether another attempt follows: when, and the count of the record that this one adds to.

    Without a delay and an instant this was the last one.
    """

    delay: float | None = None
    counts: str = ""
    until: float | None = None

    @property
    def follows(self) -> bool:
        """Whether there is to be one."""
        return self.delay is not None or self.until is not None


_NOTHING = Further()


def _class_of(verdict: Verdict) -> Any:
    """Return the error class of an agent's end."""
    return verdict.result.get("error_class") if isinstance(verdict.result, Mapping) else None


def _session(attempt: Attempt, verdict: Verdict) -> Session | None:
    """Return what the registry of sessions is told; an impossible id is the agent's fault."""
    if verdict.session is None:
        return None
    try:
        return Session(**verdict.session, job=attempt.token.id)
    except (RelayqError, TypeError) as error:
        log.warning("no session of %s is noted: %s", attempt.token.id, error)
        return None


class Delivery:
    """Brings outcomes and logs of this host's attempts to the broker."""

    def __init__(
        self, store: Store, signer: Signer, host: str, config: Config, cargo: Cargo
    ) -> None:
        self._store = store
        self._signer = signer
        self._cargo = cargo
        self._host = host
        self._room = config.defaults.max_log // 2
        self._crash_limit = config.retry.crash_limit
        self._elsewhere_after = config.resume_elsewhere_after
        self._online_within = config.lease.length
        #: Until when, on the boot clock, this host takes no job because it couldn't start the last.
        self.wary_until = 0.0
        self._faults = 0
        self._after_fault = RetryPolicy(
            first_delay=config.retry.base,
            longest_delay=config.retry.cap,
            factor=config.retry.factor,
            is_jittered=config.retry.jitter,
        )
        #: Told the seconds after which a job is due again.
        self.on_retry: Callable[[float], None] = lambda delay: None
        #: Called with an attempt that ended, until it succeeds, before its outcome goes.
        self.before_end: Callable[[Attempt], None] = lambda attempt: None
        #: Told of an attempt after which no other comes by itself, when the broker knows.
        self.on_end: Callable[[Attempt, Outcome], None] = lambda attempt, outcome: None
        #: Told of an account why it isn't logged in here, or None: it is.
        self.on_login: Callable[[str, str | None], None] = lambda account, refusal: None
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
        for one in waiting:
            try:
                self.deliver(*one)
            except Exception:  # Neither the others nor this beat are held up by it.
                log.exception("can't deliver %s", one[0].token.id)
                with self._lock:
                    self._waiting.append(one)

    def lose(self, token: Token) -> None:
        """Report that nothing is left of an attempt which has no outcome."""
        word = self._store.leases.lose(token, template=TEMPLATE, crash_limit=self._crash_limit)
        log.warning("nothing is left of %s: it is %s", token.id, word, extra={"job": token.id})

    def _finish(self, attempt: Attempt, verdict: Verdict, record: ExitRecord | None) -> None:
        token = attempt.token
        self.before_end(attempt)
        if verdict.state is JobState.QUEUED:
            self._give_back(attempt)
            return
        if verdict.state is JobState.WAITING:
            self._expand(attempt, verdict.result)
            return
        if moves := self._moves(attempt, verdict):
            verdict = replace(
                verdict, state=JobState.SCHEDULED, delay=0.0, counts="", question="", choices=()
            )
        again = self._again(attempt, verdict, record)
        if again.follows:
            verdict = replace(verdict, state=JobState.SCHEDULED)
        outcome = self._outcome(attempt, verdict, record)
        brought = self._bring(attempt)
        if brought is not None:
            outcome = replace(outcome, files=tuple(one.as_dict() for one in brought.files))
        if brought is not None and brought.git is not None:
            outcome = replace(outcome, git=brought.git.as_dict())
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
            delay=again.delay,
            until=again.until,
            counts=again.counts,
            further=self._further(attempt, verdict, moves),
        )
        log.info("%s is %s", token.id, word, extra={"job": token.id, "attempt": token.attempt})
        if word in _ENDS or (word == "already" and verdict.state in _ENDS):
            self.on_end(attempt, outcome)
        if word == "stale":
            self.lose(token)
        elif word == JobState.SCHEDULED and again.delay is not None:
            self.on_retry(again.delay)
        if attempt.directory.exists():
            lies_here = brought is not None and brought.lies_in(attempt.directory)
            if brought is not None:
                self._cargo.tidy(attempt.directory, keep=lies_here)
            keep = lies_here or not outcome.is_whole
            attempts.mark_delivered(attempt.directory, keep=keep)
        attempt.settled.set()

    def _bring(self, attempt: Attempt) -> Returned | None:
        """Bring the small result files to the broker; None for a job without files."""
        if not attempt.has_files:
            return None
        brought = returned.read(attempt.directory) or Returned()
        self._cargo.bring(attempt.token, attempt.directory, brought)
        return brought

    def _give_back(self, attempt: Attempt) -> None:
        word = self._store.leases.release(attempt.token, template=TEMPLATE)
        log.info("gave %s back: %s", attempt.token.id, word, extra={"job": attempt.token.id})
        attempts.mark_delivered(attempt.directory, keep=False)
        attempt.settled.set()

    def _expand(self, attempt: Attempt, jobs: Sequence[str]) -> None:
        """Have a job wait for those that it became."""
        token = attempt.token
        word = self._store.leases.expand(token, jobs, template=TEMPLATE)
        log.info("%s became %s jobs: %s", token.id, len(jobs), word, extra={"job": token.id})
        if word in ("stale", "no_child"):
            self.lose(token)
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
            remarks=self._remarks(attempt, verdict, record),
            outputs=verdict.outputs,
        )

    def _remarks(
        self, attempt: Attempt, verdict: Verdict, record: ExitRecord | None
    ) -> tuple[str, ...]:
        """Say what the job's limits did, as far as its end doesn't."""
        if record is None or record.skipped is None:
            return ()
        spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
        told = [
            f"its {_NAMED[limit]} limit was not held on {self._host}: {why}"
            for limit, why in record.skipped.items()
        ]
        if record.refused:
            told.append(f"it hit its limit of {spec.processes} processes")
        if record.oom and verdict.reason != Reason.OOM:
            told.append("one of its processes was ended: it hit its memory limit")
        return tuple(told)

    def _moves(self, attempt: Attempt, verdict: Verdict) -> bool:
        """Whether another host is to run it, where its agent is logged in; take note of logins."""
        account = attempt.note.account
        if not account or verdict.usage is None:
            return False
        if verdict.reason != Reason.AUTH:
            if _class_of(verdict) in _LOGGED_IN:
                self.on_login(account, None)
            return False
        spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
        if any(name.endswith(_OF_A_LOGIN) for name in spec.payload.get("env", ())):
            # It brought a login of its own, which is nobody else's.
            return False
        self.on_login(account, verdict.error or "its login is refused")
        wanted = replace(spec.constraints, accounts=(account,))
        hosts = self._store.hosts.list(online_within=self._online_within)
        return not spec.with_job and is_fit_elsewhere(wanted, hosts, but=self._host)

    def _further(self, attempt: Attempt, verdict: Verdict, moves: bool) -> Further:
        """Return what else the broker is told of an agent's end; little of a command's."""
        if verdict.queue:
            return Further(queue=verdict.queue)
        if not verdict.question and verdict.usage is None:
            return _NOTHING
        account = attempt.note.account
        spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
        queue = wide = ""
        if moves:
            queue = spec.queue
        elif verdict.next_agent:
            # A paused account is passed over until it is open again.
            is_paused = verdict.account_until is not None
            queue = spec.queue if is_paused else _next_queue(spec, account)
        # A person's answer goes to the session, too.
        elif verdict.stays and verdict.state in (JobState.SCHEDULED, JobState.NEEDS_HUMAN):
            # Another agent's account may be open sooner, but has not this session.
            alone = verdict.state is JobState.NEEDS_HUMAN
            queue, wide = spec.queue_on(self._host, account, alone=alone), spec.queue
        pause = None
        if account and verdict.account_until is not None:
            slows = _class_of(verdict) == "rate_limited"
            pause = AccountPause(
                account, until=verdict.account_until, reason=verdict.reason, slows=slows
            )
        return Further(
            queue=queue,
            wide=wide,
            overflow=self._elsewhere_after if wide else None,
            question=verdict.question,
            choices=verdict.choices,
            pause=pause,
            usage=Usage(**verdict.usage) if verdict.usage else None,
            session=_session(attempt, verdict),
        )

    def _again(self, attempt: Attempt, verdict: Verdict, record: ExitRecord | None) -> Again:
        """Say whether another attempt follows, by the cause of this one's end."""
        if record is not None and record.started_at is not None:
            self._faults = 0
        if verdict.state is JobState.SCHEDULED:
            if verdict.delay is None and verdict.until is None:
                return Again(_UNKNOWN_KEY_DELAY)
            return Again(verdict.delay, verdict.counts, verdict.until)
        is_moot = verdict.reason == Reason.REFUSED or self._has_read_input(attempt)
        if verdict.state is not JobState.FAILED or is_moot:
            return Again()
        if verdict.reason == Reason.HOST:
            self._be_wary()
            return self._again_after_fault(attempt)
        if record is not None and record.reason == AWAY:
            return self._again_after_fault(attempt)
        spec = self._signer.check_spec(attempt.note.signed, id=attempt.token.id)
        exit_code = record.code if record else None
        failures = attempt.note.failures + 1
        delay = decide(
            RetryPolicy.of(spec), verdict.reason, exit_code, failures, jitter=random.random()
        )
        return Again() if delay is None else Again(delay, "failures")

    def _be_wary(self) -> None:
        # Else a host with a full disk takes every job of the fleet, and fails it.
        self._faults += 1
        rest = self._after_fault.delay(self._faults, jitter=random.random())
        self.wary_until = clock.boottime() + rest

    def _again_after_fault(self, attempt: Attempt) -> Again:
        delay = delay_after_fault(
            self._after_fault,
            attempt.note.losses + 1,
            crash_limit=self._crash_limit,
            jitter=random.random(),
        )
        return Again(delay, "losses")

    def _has_read_input(self, attempt: Attempt) -> bool:
        """Whether an input is gone that no further attempt could have."""
        is_fed = attempts.is_fed(attempt.directory)
        return is_fed and self._store.inputs.taken(attempt.token.id) > 0

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
