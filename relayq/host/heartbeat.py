"""The duties of a worker besides running jobs: beat, listen, pull, tick; a thread each.

The beat renews the leases of all attempts by name and, when it is answered, the permit on which
their shims run: 45 s from when it was *sent*. Each duty has connections of its own and survives
any outage; Celery's event loop stands still during one.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from relayq import clock
from relayq.errors import BrokerUnavailable
from relayq.host.awake import send_magic
from relayq.host.delivery import Attempt
from relayq.host.facts import Sheet, current_load
from relayq.host.governor import Governor
from relayq.host.process import Permit
from relayq.host.runner import Runner
from relayq.signing import Ring
from relayq.store import Store
from relayq.version import __version__

log = logging.getLogger(__name__)

#: How long, in seconds, the control list is waited for in one call; less than a call's patience.
_LISTEN = 5.0
_AGAIN = 1.0


class Heartbeat:
    """Speaks for the host: registers, beats, and acts on the answers."""

    def __init__(
        self,
        runner: Runner,
        store: Store,
        permit: Permit,
        governor: Governor,
        sheet: Sheet,
        *,
        ring: Ring,
    ) -> None:
        self._runner = runner
        self._governor = governor
        self._store = store
        self._permit = permit
        self._ring = ring
        self._lease = runner.config.lease
        self.sheet = sheet
        self._published = -1
        self._registered = False
        self._followed = False
        self._last = 0.0
        self._wake = threading.Event()
        self._complaint = ""
        runner.on_busy = self._on_busy
        runner.on_doubt = self._on_doubt
        runner.on_asked = self.stop_waiting
        governor.on_change = self.stop_waiting
        sheet.on_change = self.stop_waiting

    def _on_busy(self) -> None:
        self._governor.expect_job()
        if clock.boottime() - self._last > self._lease.beat / 2:
            self._wake.set()

    def _on_doubt(self) -> None:
        self._registered = False
        self._wake.set()

    def run(self, leaving: threading.Event) -> None:
        """Beat until the worker leaves."""
        while not leaving.is_set():
            try:
                is_answered = self.beat_once()
            except Exception:
                log.exception("a beat failed")
                is_answered = False
            self._runner.rouse()
            wait = self._lease.beat if self._runner.attempts() else self._lease.idle_beat
            self._wake.wait(wait if is_answered else min(_AGAIN, self._lease.extend / 8))
            self._wake.clear()

    @property
    def last(self) -> float:
        """When its last beat was sent, or tried."""
        return self._last

    def stop_waiting(self) -> None:
        """Wake the loop, to beat or to leave."""
        self._wake.set()

    def beat_once(self) -> bool:
        """Send one beat that names every attempt, and act on the answer."""
        sent = self._last = clock.boottime()
        try:
            if not self._registered:
                with self._runner.claiming:
                    self._register()
            named = [attempt for attempt in self._runner.attempts() if not attempt.is_stale]
            word, words = self._store.leases.beat(
                self._runner.who,
                [(attempt.token, attempt.phase) for attempt in named],
                lease=self._lease.length,
                load=json.dumps(
                    {
                        **self._governor.shared(current_load(self._runner.config.home)),
                        "clock": round(clock.now(), 3),
                        "audit": self._runner.trail.head,
                        "courtesy": self._governor.as_dict(),
                    }
                ),
            )
            if word != "ok":
                self._registered = False
                raise BrokerUnavailable(f"the broker says that this host is {word}")
            for attempt, answer in zip(named, words, strict=True):
                self._obey(attempt, answer)
            self._permit.extend_to(sent + self._lease.permit)
            self._report(named)
            self._publish()
            self._after_answer()
        except BrokerUnavailable as error:
            self._unanswered(error)
            return False
        return True

    def _report(self, named: Sequence[Attempt]) -> None:
        """Say what stands still here, and hear what people want to; before the first claim."""
        wishes = self._store.pauses.report(
            self._runner.who, [(attempt.token, attempt.pause) for attempt in named]
        )
        if wishes is not None:
            self._governor.hear(named, wishes)
        self._runner.desk.report(named)

    def _obey(self, attempt: Attempt, answer: str) -> None:
        if answer == "stale" and not attempt.settled.is_set():
            self._runner.drop(attempt)
        elif answer == "cancel":
            self._runner.cancel(attempt.token.id)

    def _register(self) -> None:
        if not self._followed:
            # The worker before this one may have parked permit and leases for long. Registering
            # ends the long leases, so the long permit must have ended before.
            self._permit.end_by(clock.boottime() + self._lease.permit)
        self._runner.who = replace(self._runner.who, session=secrets.token_hex(6))
        revision, facts = self.sheet.revision, self.sheet.current()
        word, claimed = self._store.hosts.register(
            self._runner.who,
            lease=self._lease.length,
            key_id=self._ring.id,
            slots=self._runner.slots.total,
            version=__version__,
            facts=facts,
        )
        if word == "taken":
            raise BrokerUnavailable(
                f"another machine is already called {self._runner.who.host}",
                hint="give this one another worker.name in config.yml",
            )
        if word == "wrong_key" and self._ring.renew():
            log.info("the fleet's key is %s now", self._ring.id)
            self._register()
            return
        if word == "wrong_key":
            raise BrokerUnavailable(
                "this machine's fleet key isn't the broker's",
                hint="copy fleet.key from a machine that works",
            )
        self._runner.queues.describe(facts)
        self._published = revision
        self._runner.lose_unknown(claimed)
        self._registered = True
        log.info("registered %s with %s slots", self._runner.who.host, self._runner.slots.total)

    def _publish(self) -> None:
        """Say anew what this host has, if that is something else than before."""
        revision, facts = self.sheet.revision, self.sheet.current()
        if revision == self._published or not self._store.hosts.publish(self._runner.who, facts):
            return
        self._runner.queues.describe(facts)
        self._runner.eager.set()
        self._published = revision

    def _after_answer(self) -> None:
        if not self._followed:
            self._runner.follow_adopted()
            self._followed = True
        self._runner.delivery.deliver_waiting()
        if self._complaint:
            log.info("the broker answers again")
            self._complaint = ""
        if not self._runner.may_claim.is_set():
            self._runner.may_claim.set()
            # The nudges of what was queued meanwhile may have been lost with the connection.
            self._runner.eager.set()

    def _unanswered(self, error: BrokerUnavailable) -> None:
        self._runner.may_claim.clear()
        if error.message != self._complaint:
            log.warning("%s%s", error.message, f" ({error.hint})" if error.hint else "")
            self._complaint = error.message
        deadline, at = self._permit.deadline(), clock.boottime()
        # Cut off, but alive: the jobs go on, and may overlap only as long as this lasts.
        if self._followed and deadline is not None and deadline > at:
            self._permit.extend_to(at + self._lease.extend)

    def park(self) -> None:
        """Lengthen leases and permit for a planned stop; without an answer, neither."""
        sent = clock.boottime()
        named = [attempt for attempt in self._runner.attempts() if not attempt.is_stale]
        try:
            word, words = self._store.leases.park(
                self._runner.who, [a.token for a in named], duration=self._lease.park
            )
        except BrokerUnavailable as error:
            log.warning("can't park the leases: %s", error)
            return
        for attempt, answer in zip(named, words, strict=False):
            self._obey(attempt, answer)
        if word == "ok" and self._followed:
            self._permit.extend_to(sent + self._lease.park - self._lease.beat)


class Duties:
    """The threads of a worker's duties."""

    def __init__(self, runner: Runner, heartbeat: Heartbeat, store: Store) -> None:
        self._runner = runner
        self._heartbeat = heartbeat
        self._store = store
        self._lease = runner.config.lease
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start to beat and to listen."""
        leaving = self._runner.leaving
        self._start("heartbeat", lambda: self._heartbeat.run(leaving))
        self.every("control", self._listen, 0.0)

    def pull(self) -> None:
        """Have idle slots claim now and then what no nudge brought."""
        self._start("pull", self._pull)

    def _pull(self) -> None:
        while not self._runner.leaving.is_set():
            self._runner.eager.wait(self._lease.pull * (0.75 + random.random() / 2))
            self._runner.eager.clear()
            try:
                self._runner.pull()
            except Exception:
                log.exception("pulling failed")

    def govern(self, governor: Governor, *, measures: bool) -> None:
        """Start to stand back for the owner (if it `measures`), and for people's wishes."""
        leaving = self._runner.leaving
        governor.prepare(measures=measures)
        self._start("governor", lambda: governor.run(leaving))

    def every(self, name: str, duty: Callable[[], None], interval: float) -> None:
        """Run a further duty about every `interval` seconds."""
        self._start(name, lambda: self._until_leaving(duty, interval))

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _until_leaving(self, duty: Callable[[], None], interval: float) -> None:
        leaving = self._runner.leaving
        while not leaving.is_set():
            try:
                duty()
            except BrokerUnavailable:
                leaving.wait(_AGAIN)
            except Exception:
                log.exception("%s failed", threading.current_thread().name)
                leaving.wait(_AGAIN)
            leaving.wait(interval * (0.75 + random.random() / 2))

    def _listen(self) -> None:
        message = self._store.hosts.listen(
            self._runner.who.host, patience=min(_LISTEN, self._lease.extend / 3)
        )
        if message is None:
            return
        match message:
            case {"op": "wake"}:
                self._runner.wake(str(message.get("queue", "")))
            case {"op": "beyond"}:
                self._runner.pull_beyond()
            case {"op": "look"}:
                # Forty programs may be asked; nothing else here has to wait for that.
                self._start("look", self._heartbeat.sheet.look)
            case {"op": "beat"}:
                self._heartbeat.stop_waiting()
            case {"op": "answer", "job": str(id)}:
                self._runner.desk.hear(self._runner.attempts(), id)
            case {"op": "magic", "mac": str(mac)}:
                send_magic(mac)
            case {"op": "cancel", "job": str(id)}:
                self._runner.cancel(id)
            case {"op": "follow", "job": str(id), "reply": str(reply)}:
                self._runner.follow(
                    id,
                    reply,
                    number=message.get("attempt"),
                    position=int(message.get("position", 0)),
                    live=message.get("live", True) is not False,
                )
            case _:
                log.warning("an unknown message: %s", message)

    def join(self, within: float) -> None:
        """Wait that many seconds for each duty to end; one that blocks on the broker is left."""
        self._heartbeat.stop_waiting()
        for thread in self._threads:
            thread.join(within)
