"""Runs attempts: claim, start under a shim, follow to the end; adopts those that run already.

Called from slot threads. Nothing here decides who owns a job: every write carries the attempt's
token, and the permit file decides whether a shim may run at all.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from relayq import clock
from relayq.config import Config
from relayq.dispatch import TEMPLATE
from relayq.errors import BrokerFull, BrokerUnavailable, RelayqError
from relayq.host import attempts, cgroups, givenback, retelling, returned
from relayq.host.admission import Admission, EndedBefore
from relayq.host.attempts import ClaimNote
from relayq.host.cargo import Cargo
from relayq.host.checkpoints import Checkpoints
from relayq.host.delivery import HAND_BACK, Attempt, Delivery, judge
from relayq.host.desk import Desk
from relayq.host.gauges import Gauge
from relayq.host.inputs import Inputs
from relayq.host.preparation import Preparation, no_room, quotas_of
from relayq.host.process import ExitRecord, ForkServer, Shim, sweep
from relayq.host.process import attempts as attempt_directories
from relayq.host.queues import Queues
from relayq.host.replies import Replies
from relayq.host.slots import Loan, Slots
from relayq.host.trail import Trail
from relayq.kinds import Verdict
from relayq.model.jobs import JobState, Reason, Token
from relayq.privileges import job_user
from relayq.rotation import found_newer
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.leases import Claim, Registration

log = logging.getLogger(__name__)

#: How often a slot thread looks up from waiting for its shim.
_LOOK = 0.1
#: How long after it asked for the end of a job of its own a job counts as waiting: it asks again
#: every 2.5 s at least.
_WAITS = 4.0


def _always(patience: float) -> bool:
    return True


class Runner:
    """The attempts of one worker and its slots."""

    def __init__(
        self,
        config: Config,
        who: Registration,
        *,
        store: Store,
        signer: Signer,
        forks: ForkServer,
        permit: Path,
    ) -> None:
        self.config = config
        self.who = who
        self.slots = Slots(config.worker.max_concurrent)
        self.queues = Queues(who.host, config.worker.limits, quotas_of(config.agents))
        #: Whether the last claim was refused because this host is to take nothing.
        self.is_barred = False
        #: Whether this host takes nothing new for now, for its owner's sake or by a person's wish.
        self.rests = False
        #: Set while a beat that named every attempt was answered and acted on.
        self.may_claim = threading.Event()
        #: Set when the worker stops: slot threads leave their jobs to the shims.
        self.leaving = threading.Event()
        #: Set when the worker is to stop once its jobs are off it: nothing new is claimed.
        self.draining = threading.Event()
        #: Called when there is an attempt to beat for.
        self.on_busy: Callable[[], None] = lambda: None
        #: Called when only a beat can tell where this worker stands.
        self.on_doubt: Callable[[], None] = lambda: None
        #: Called when a job has begun to ask something.
        self.on_asked: Callable[[], None] = lambda: None
        self._cargo = Cargo(config, store, signer)
        self.delivery = Delivery(store, signer, who.host, config, self._cargo)
        self.delivery.before_end = self._before_end
        self._checkpoints = Checkpoints(store, signer)
        self.desk = Desk(store, signer)
        self._replies = Replies(store)
        self._inputs = Inputs(store, signer)
        self._store = store
        self.signer = signer
        #: What this host notes of its jobs, for good.
        self.trail = Trail(config, who.host, job_user())
        self._forks = forks
        #: Whether a job may start here at all.
        self.admission = Admission(config, who.host, store, signer, may_run=self.queues.may_run)
        self.delivery.on_end = self.admission.ended
        self.desk.may_hear = partial(self.admission.check_said, "reply")
        self._inputs.may_hear = partial(self.admission.check_said, "note")
        self._preparation = Preparation(
            config, who.host, store, signer, self.queues, permit, self._cargo, self.admission
        )
        self._attempts: dict[Token, Attempt] = {}
        self._lock = threading.Lock()
        #: Held from a claim until its attempt is known here, and while the host registers: what
        #: the records then say it runs, and nobody here knows of, is nobody's.
        self.claiming = threading.Lock()
        #: Set when idle slots should claim at once.
        self.eager = threading.Event()

    @property
    def is_closing(self) -> bool:
        """Whether the worker takes nothing new any more."""
        return self.leaving.is_set() or self.draining.is_set()

    def attempts(self) -> list[Attempt]:
        """Return the attempts that this worker answers for."""
        with self._lock:
            for token in [t for t, a in self._attempts.items() if a.settled.is_set()]:
                del self._attempts[token]
            return list(self._attempts.values())

    def work(self, *, nudged: bool = False) -> bool:
        """With a slot in hand, claim a job and run it to its end; False if there was none."""
        claimed = self._claim(nudged=nudged)
        if claimed is not None:
            self._run(*claimed)
        return claimed is not None

    def pull(self) -> None:
        """Claim for every idle slot what no nudge brought, each in a thread of its own."""
        while self.may_claim.is_set() and not self.is_closing and self.slots.take():
            if not self._pull_one():
                return

    def pull_beyond(self) -> None:
        """Claim one job with no slot for it, once at a time: this host's upgrade waits for none."""
        if self.may_claim.is_set() and not self.is_closing and self.slots.free >= 0:
            self.slots.take_anyway()
            self._pull_one()

    def _pull_one(self) -> bool:
        try:
            claimed = self._claim()
        except BaseException:
            self.slots.give_back()
            raise
        if claimed is None:
            self.slots.give_back()
            return False
        name = f"pulled-{claimed[0].token.id}"
        threading.Thread(target=self._run_and_free, args=claimed, name=name).start()
        return True

    def free_slot(self) -> None:
        """Give a slot back; what waited for what its attempt took may be claimed now."""
        self.slots.give_back()
        if self.queues.is_holding:
            self.eager.set()

    @property
    def takes_nudges(self) -> bool:
        """Whether a nudge for a command would find a slot here."""
        if self.slots.free <= 0 or not self.may_claim.is_set() or self.is_barred:
            return False
        if self.rests:
            return False
        return self.queues.takes_commands(a.note.signed for a in self.attempts())

    def rest(self, is_resting: bool) -> None:
        """Take nothing new from now on, or go on."""
        if is_resting != self.rests:
            self.rests = is_resting
            self.slots.on_free()
            if not is_resting:
                self.eager.set()

    def wake(self, queue: str) -> None:
        """Claim soon, if this host serves the queue; "" is any."""
        if not queue or self.queues.serves(queue):
            self.eager.set()

    def _run_and_free(self, attempt: Attempt, claim: Claim) -> None:
        try:
            self._run(attempt, claim)
        finally:
            self.free_slot()
            # What its end made ready on a queue of needs, no nudge brings.
            self.eager.set()

    def _claim(self, *, nudged: bool = False) -> tuple[Attempt, Claim] | None:
        with self.claiming:
            claim = self._ask(nudged=nudged)
            if claim is None:
                return None
            directory = self.config.spool / attempts.directory_name(claim.token)
            note = ClaimNote(claim.signed, claim.failures, claim.losses, claim.account)
            attempt = Attempt(claim.token, note, directory)
            with self._lock:
                self._attempts[claim.token] = attempt
        if claim.account and (spacing := self.queues.spacing(claim.account)):
            # The account's next job may start then, and no nudge says so.
            timer = threading.Timer(spacing, self.eager.set)
            timer.daemon = True
            timer.start()
        return attempt, claim

    def _ask(self, *, nudged: bool) -> Claim | None:
        is_wary = clock.boottime() < self.delivery.wary_until
        if is_wary or not self.may_claim.is_set() or self.is_closing or self.rests:
            return None
        try:
            claim = self._claimed(nudged=nudged)
        except BrokerFull as error:
            # An answer, and no doubt: a beat now, and a claim after it, would go round and round.
            log.warning("can't claim: %s", error)
            return None
        except BrokerUnavailable as error:
            log.warning("can't claim: %s", error)
            claim = "unanswered"
        if self.is_barred != (claim == "barred"):
            self.is_barred = not self.is_barred
            # The consumer looks whether it may take nudges again.
            self.slots.on_free()
        if isinstance(claim, Claim):
            return claim
        if claim not in ("none", "barred", "full"):
            self.may_claim.clear()
            self.on_doubt()
        return None

    def _claimed(self, *, nudged: bool) -> Claim | str:
        """Claim of what there is room for here, once all queues and the fleet's key are known."""
        claim: Claim | str = "queues"
        while claim in ("queues", "key"):
            if not self.queues.version:
                self.queues.learn(self._store.leases.registry(self.who.host))
            offered = self.queues.offer(attempt.note.signed for attempt in self.attempts())
            claim = self._store.leases.claim(
                self.who,
                [queue for queue, _ in offered],
                wants=[wants for _, wants in offered],
                registry=self.queues.version,
                max_running=self.config.scheduler.max_running,
                uid=secrets.token_hex(6),
                lease=self.config.lease.length,
                nudged=nudged,
                key_id=self.signer.key_id,
            )
            if claim == "queues":
                self.queues.learn(self._store.leases.registry(self.who.host))
            if claim == "key" and not found_newer(self.signer.ring):
                return "barred"
        return claim

    def _run(self, attempt: Attempt, claim: Claim) -> None:
        token = attempt.token
        log.info("claimed %s", token.id, extra={"job": token.id, "attempt": token.attempt})
        self.on_busy()
        try:
            if self._start(attempt, claim):
                self._follow(attempt)
        except BrokerUnavailable as error:
            log.warning("no broker for %s: %s", token.id, error, extra={"job": token.id})
            self._abandon(attempt)
        except Exception:
            log.exception("attempt %s of %s broke", token.attempt, token.id)
            self._abandon(attempt)

    def _start(self, attempt: Attempt, claim: Claim) -> bool:
        """Start the job's process if all is in order; False when there is nothing to follow."""
        token = attempt.token
        try:
            verdict = self._preparation.prepare(attempt, claim)
        except EndedBefore as before:
            log.warning("%s had ended here; it isn't run again", token.id, extra={"job": token.id})
            retelling.tell(self._store, self.signer, attempt, before.outcome)
            return False
        if verdict is not None:
            if verdict.reason in (Reason.REFUSED, Reason.AUTH):
                self.trail.refused(attempt, verdict.error)
            self.delivery.deliver(attempt, verdict)
            return False
        self._outlast_older(attempt)
        if self.is_closing:
            self._store.leases.release(token, template=TEMPLATE)
            self._discard(attempt)
            return False
        _, words = self._store.leases.beat(
            self.who, [(token, "started")], lease=self.config.lease.length
        )
        if words != ["ok"]:
            attempts.mark_delivered(attempt.directory, keep=False)
            if words == ["cancel"]:
                self.delivery.deliver(attempt, Verdict(JobState.CANCELLED, Reason.USER))
            attempt.settled.set()
            return False
        attempt.phase = "started"
        self.trail.started(attempt)
        try:
            self._forks.spawn(attempt.directory, attempt.secrets)
        except RelayqError as error:
            log.error("can't start %s: %s", token.id, error, extra={"job": token.id})
            if isinstance(error.__cause__, OSError):
                # No room even for the record that says so.
                verdict = no_room(error.__cause__)
                self.trail.ended(attempt, verdict, None)
                self.delivery.deliver(attempt, verdict)
                return False
        attempt.shim = Shim(attempt.directory)
        for reply in claim.replies:
            self.follow(token.id, reply)
        if attempt.is_fed:
            self._inputs.take(attempt)
        return True

    def _outlast_older(self, attempt: Attempt) -> None:
        """End an attempt of the same job that still runs here, before the next one begins.

        This host was cut off until now and lost it; its grace may take a while.
        """
        for other in self.attempts():
            if other.token.id == attempt.token.id and other is not attempt and other.shim:
                self.drop(other)
                while not other.shim.wait(_LOOK) and not self.leaving.is_set():
                    pass

    def _follow(self, attempt: Attempt) -> None:
        """Wait for the end and settle it; returns early, leaving the job, when the worker stops."""
        shim = attempt.shim
        if shim is None:
            raise RuntimeError("an attempt without a shim can't be followed")
        gauge = Gauge(self._store, attempt)
        supply = self._cargo.supply(attempt.directory) if attempt.has_files else None
        loan = Loan(self.slots)
        given = givenback.of_attempt(self._store, self.signer, attempt)
        while not shim.wait(_LOOK):
            if self.leaving.is_set():
                return
            if loan.look(waits=clock.boottime() < attempt.waited_at + _WAITS):
                self.eager.set()
            self.delivery.send_head(attempt)
            if self.desk.is_new(attempt):
                self.on_asked()
            gauge.look()
            self._checkpoints.look(attempt)
            if supply is not None:
                supply.look()
            if given is not None:
                given.look()
        loan.look(waits=False)
        self._settle(attempt, shim.exit_record())

    def _settle(self, attempt: Attempt, record: ExitRecord | None) -> None:
        if record is not None and not attempt.is_stale:
            verdict = judge(attempt, record, self.signer)
            self.trail.ended(attempt, verdict, record)
            self.delivery.deliver(attempt, verdict, record)
            return
        self.trail.ended(attempt, None, record)
        if record is None:
            sweep(attempt.directory)
            cgroups.sweep()
            self._checkpoints.bring(attempt)
        self.delivery.lose(attempt.token)
        self._discard(attempt)

    def _before_end(self, attempt: Attempt) -> None:
        self._checkpoints.bring(attempt)
        if (given := givenback.of_attempt(self._store, self.signer, attempt)) is not None:
            given.submit()

    def _discard(self, attempt: Attempt) -> None:
        attempts.mark_delivered(attempt.directory, keep=False)
        attempt.settled.set()

    def _abandon(self, attempt: Attempt) -> None:
        """Give up an attempt that can't be followed: end its process, leave its lease to expire."""
        if attempt.shim is not None and attempt.shim.is_alive():
            self.drop(attempt)
            attempt.shim.wait(None)
        attempt.settled.set()

    def rouse(self) -> None:
        """Have every shim look at what was written for it.

        One that somebody stopped would neither freeze its job, when the permit has run out, nor
        end it, when its time has.
        """
        for attempt in self.attempts():
            if attempt.shim is not None:
                attempt.shim.look()

    def cancel(self, id: str) -> None:
        """End the process tree of a job that was cancelled."""
        for attempt in self.attempts():
            if attempt.token.id == id:
                self._kill(attempt, "cancel")

    def hand_back(self) -> None:
        """End what runs here and give it back to its queue, uncounted."""
        for attempt in self.attempts():
            self._kill(attempt, HAND_BACK)

    def drop(self, attempt: Attempt) -> None:
        """End an attempt whose lease moved on: nothing more is written for it."""
        # One that has just ended is no longer ours either: its outcome was taken.
        if attempt.shim is not None and attempt.shim.is_alive():
            attempt.is_stale = True
            self._kill(attempt, "stale")

    def _kill(self, attempt: Attempt, reason: str) -> None:
        if attempt.shim is not None and attempt.shim.is_alive():
            log.info("ending %s: %s", attempt.token.id, reason, extra={"job": attempt.token.id})
            attempt.shim.kill(reason, self.config.defaults.grace)

    def follow(
        self,
        id: str,
        reply: str,
        *,
        number: int | None = None,
        position: int = 0,
        live: bool = True,
    ) -> None:
        """Send a job's output to a follower: what is here and, if `live`, what is to come."""
        with self.claiming:
            pass  # the claim that this request came after is known from here on
        kept, has_ended = attempts.find(self.config.spool, id, number), _always
        for attempt in self.attempts():
            if live and attempt.token.id == id and number in (None, attempt.token.attempt):
                kept, has_ended = attempt.directory, attempt.has_ended
        # A live follower of an attempt that isn't here is asked for again by the next claim.
        if kept is not None or not live:
            self._replies.serve(id, reply, kept, position=position, has_ended=has_ended)

    def adopt(self) -> None:
        """Take over what the worker before this one left: its attempts keep their slots."""
        for directory in attempt_directories(self.config.spool):
            token = attempts.token_of(directory)
            if token is None or attempts.is_delivered(directory):
                continue
            note = ClaimNote.read(directory)
            if note is None:
                # It was never prepared to its end, so it never ran.
                attempts.mark_delivered(directory, keep=False)
                continue
            attempt = Attempt(token, note, directory, phase="started", shim=Shim(directory))
            attempt.is_adopted = True
            attempt.has_files = returned.has_files(directory)
            if attempts.is_frozen(directory):
                attempt.pause = "paused under the worker before this one"
            self._attempts[token] = attempt
            log.info("adopted %s", token.id, extra={"job": token.id, "attempt": token.attempt})

    def follow_adopted(self) -> None:
        """Follow what was adopted, each in a thread, as if this worker had started it."""
        for attempt in self.attempts():
            self.slots.take_anyway()
            threading.Thread(
                target=self._follow_adopted, args=(attempt,), name=f"adopted-{attempt.token.id}"
            ).start()

    def _follow_adopted(self, attempt: Attempt) -> None:
        try:
            self._resume_replies(attempt)
            if attempts.is_fed(attempt.directory):
                self._inputs.take(attempt)
            self._follow(attempt)
        except Exception:
            log.exception("adopted attempt of %s broke", attempt.token.id)
            self._abandon(attempt)
        finally:
            self.free_slot()

    def _resume_replies(self, attempt: Attempt) -> None:
        logs, id = self._store.logs, attempt.token.id
        try:
            attempt.log_sent = logs.appended(id)
            for reply in logs.followers(id):
                sent = logs.sent(reply)
                position = sent.position + len(sent.frames) if sent else 0
                self.follow(id, reply, position=position)
        except BrokerUnavailable as error:
            log.warning("can't resume the replies of %s: %s", id, error, extra={"job": id})

    def lose_unknown(self, claimed: list[Token]) -> None:
        """Report lost what the records say this host runs, and nothing here knows of."""
        mine = {attempt.token for attempt in self.attempts()}
        for token in claimed:
            if token not in mine:
                self.delivery.lose(token)
