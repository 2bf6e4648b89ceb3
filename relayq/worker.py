"""The worker: Celery's, with our slots, our duties and our end.

`celery -A relayq.tasks worker` and `relayq worker start` both make one of these: `Node` is started
and stopped by a step of Celery's worker, the consumer asks its slots before it takes a nudge.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import bootsteps, signals
from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from kombu.asynchronous import get_event_loop

from relayq import clock, embedded, exporting, privileges
from relayq import config as configuration
from relayq.celeryconfig import settings
from relayq.config import Config
from relayq.dispatch import message
from relayq.errors import BrokerUnavailable
from relayq.exporting import Exporter, keeps_fleet
from relayq.host import cgroups, probes
from relayq.host.daily import DailyLog
from relayq.host.doorway import Doorway
from relayq.host.facts import Sheet, registration
from relayq.host.governor import Governor
from relayq.host.heartbeat import Duties, Heartbeat
from relayq.host.lowering import lower
from relayq.host.process import ForkServer, Permit, SpoolLock
from relayq.host.runner import Runner
from relayq.host.watchdog import Signs, Tries, Watchdog
from relayq.model.units import STOPPED
from relayq.notify import Supervisor
from relayq.reaper import Reaper
from relayq.rotation import workers_signer
from relayq.store import connect

log = logging.getLogger(__name__)

#: How long a blocking wait of the control thread may take to be answered.
_PATIENCE = 8.0
_PRUNE_EVERY = 3600.0
#: What of the audit trail a power cut may cost.
_SYNC_EVERY = 5.0
_SWEEP_EVERY = 300.0
#: How often a worker looks whether its machine's tools have changed.
_LOOK_EVERY = 300.0
_LOGINS_EVERY = 30.0
#: How often a worker looks after the private broker beside it.
_KEEP_EVERY = 3.0
#: The consumer's attempts to connect: a line a second of an outage, which the heartbeat says once.
TRIES = Tries()


def url_of(config: Config) -> str:
    """Return the configured broker's URL, else that of this machine's private one."""
    return config.broker_url or embedded.local_url(config)


class Node:
    """One host's worker without its transport: all that goes on while Celery reconnects."""

    def __init__(self, config: Config, broker_url: str, *, slots: int | None = None) -> None:
        if slots is not None:
            config = replace(config, worker=replace(config.worker, max_concurrent=slots))
        self.config = config
        lower(config)
        config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        config.spool.mkdir(exist_ok=True, mode=0o700)
        self._lock = SpoolLock(config.spool)
        self._lock.acquire()
        self._forks = ForkServer()
        permit_path = config.spool / "permit"
        # One beat that hangs, and the next one, must fail before the permit needs to be extended.
        patience = min(_PATIENCE, config.lease.extend / 2)
        self.store = connect(broker_url, patience=patience)
        signer = workers_signer(config, self.store)
        # A beat must not wait behind the slots' own calls.
        self._beat_store = connect(broker_url, patience=patience)
        who = registration(config.worker.name, config.home)
        self.runner = Runner(
            config, who, store=self.store, signer=signer, forks=self._forks, permit=permit_path
        )
        permit = Permit(permit_path)
        self._governor = Governor(self.runner)
        self._sheet = Sheet(config, broker_url, signer)
        self._heartbeat = Heartbeat(
            self.runner,
            self._beat_store,
            permit,
            self._governor,
            self._sheet,
            ring=signer.ring,
        )
        self._duties = Duties(self.runner, self._heartbeat, self._beat_store)
        self._reaper = Reaper(config, self._beat_store, signer)
        self.runner.delivery.on_retry = self._reaper.tick_in
        self.runner.delivery.on_login = self._heed
        # What its jobs ask waits in threads of theirs, and is the jobs' act.
        asked_here = connect(broker_url)
        asked_here.jobs.who = f"jobs@{who.host}"
        self._doorway = Doorway(self.runner, asked_here, config.home)
        self._hands_back = False
        #: Whether somebody asked it to end, and didn't just signal.
        self.was_asked = False
        embedded.asked_stop(config)

    def start(self, *, pull: bool = True) -> None:
        """Start the fork server and the duties; must be called from the main thread.

        With `pull`, idle slots claim by themselves what no nudge brought.
        """
        if self.config.broker_url is None and not privileges.is_lowered():
            # Before the niceness, which on Linux is a thread's own: the broker must not inherit it.
            self._duties.every("broker", embedded.Keeper(self.config).look, _KEEP_EVERY)
        lower_priority(self.config.worker.niceness)
        self._forks.start()
        cgroups.sweep()
        self.runner.admission.tell()
        self.runner.adopt()
        self._doorway.open()
        self.runner.trail.begin(self.runner.signer.key_id)
        self._duties.start()
        self._duties.govern(self._governor, measures=pull)
        if pull:
            self._duties.pull()
        self._duties.every("tick", self._reaper.tick, self.config.lease.tick)
        self._duties.every("probes", self._sheet.look, _LOOK_EVERY)
        self._duties.every("logins", self._sheet.look_again, _LOGINS_EVERY)
        self._duties.every("sweep", self._reaper.sweep, _SWEEP_EVERY)
        self._duties.every("prune", self._reaper.prune_outputs, _PRUNE_EVERY)
        self._duties.every("audit", self.runner.trail.ledger.sync, _SYNC_EVERY)
        self._duties.every("old audit", self.runner.trail.tidy, _PRUNE_EVERY)
        if keeps_fleet(self.config):
            exporter = Exporter(self.config)
            self._duties.every("events", partial(exporter.look, self._beat_store), exporting.EVERY)
            self._duties.every("old events", exporter.tidy, _PRUNE_EVERY)

    def watch(self, supervisor: Supervisor, pool: SlotPool) -> None:
        """Tell the service manager that this worker is ready, and from now on that it is well.

        It is ready without its broker, too: that one may be down for long, and is waited for.
        """
        signs = Signs(self.runner, self._heartbeat, ask_consumer=pool.call, tries=TRIES)
        supervisor.ready(f"{self.runner.who.host}: {self.runner.slots.total} slots")
        Watchdog(supervisor, signs).start()

    def _heed(self, account: str, refusal: str | None) -> None:
        """Have the fleet know whether an account is logged in here, before a job of it moves on."""
        before = self._sheet.revision
        self._sheet.heed(account, refusal)
        if self._sheet.revision != before:
            facts = self._sheet.current()
            self.store.hosts.publish(self.runner.who, facts)
            with self.runner.claiming:
                self.runner.queues.describe(facts)

    def close(self) -> None:
        """Take nothing new, and do with what runs as was asked; safe in a signal handler.

        Told so a second time, a worker that waits for its jobs leaves them.
        """
        asked = embedded.asked_stop(self.config)
        how, self.was_asked = asked or embedded.LEAVE, self.was_asked or asked is not None
        if how == embedded.LEAVE or self.runner.draining.is_set():
            self.leave()
            return
        log.info("stopping: %s", how)
        self._hands_back = how == embedded.HAND_BACK
        self.runner.draining.set()

    def leave(self) -> None:
        """Have every slot thread leave its job to the shim; safe in a signal handler."""
        self.runner.leaving.set()
        self.runner.eager.set()

    def stop(self) -> None:
        """Park the leases, end the duties and the fork server; what still runs goes on."""
        if self.runner.draining.is_set():
            self._drain()
        self.leave()
        self._governor.stop_waiting()
        probes.give_up()
        self._heartbeat.park()
        self._duties.join(within=0.1)
        self._doorway.close()
        self._forks.close()
        self.runner.trail.ledger.close()
        self._lock.release()

    def _drain(self) -> None:
        """Wait until every attempt is off this host, or somebody loses patience."""
        gone_at = None
        while (left := self.runner.attempts()) and not self.runner.leaving.is_set():
            if self._hands_back:
                self.runner.hand_back()
                if any(a.shim is None or a.shim.is_alive() for a in left):
                    gone_at = None
                elif gone_at is None:
                    gone_at = clock.boottime()
                elif clock.boottime() > gone_at + _PATIENCE:
                    # Without a broker: the next worker here gives them back.
                    return
            clock.sleep(0.05)

    def nudged(self, id: str, kind: str, queue: str) -> None:
        """Answer a nudge, from a pool thread: claim and run until nothing is queued.

        A slot that claims again by itself needn't wait for the consumer's next nudge, which was
        45 % of a short job's time.
        """
        if not self.runner.slots.take():
            # Another idle host must not wait for its pull.
            self._bounce(id, kind, queue)
            return
        try:
            nudged = True
            while self.runner.work(nudged=nudged):
                nudged = False
        finally:
            self.runner.slots.give_back()
        if nudged and (self.runner.is_barred or self.runner.rests):
            self._bounce(id, kind, queue)

    def _bounce(self, id: str, kind: str, queue: str) -> None:
        try:
            self.store.jobs.nudge(queue, message(id, kind, queue))
        except BrokerUnavailable as error:
            log.debug("couldn't pass on the nudge for %s: %s", id, error)


def lower_priority(niceness: int) -> None:
    """Run this process, and so all jobs, at least that nice; disk access only when idle."""
    now = os.nice(0)
    if niceness > now:
        os.nice(niceness - now)
    if niceness > 0 and sys.platform == "linux":
        import psutil

        try:
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
        except (OSError, psutil.Error) as error:
            log.debug("no idle I/O class here: %s", error)


class SlotPool(ThreadPool):  # type: ignore[misc]
    """Threads that answer nudges; a few more than slots, since an adopted job takes a slot only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.executor._max_workers = self.limit + 2

    def on_start(self) -> None:
        """Keep the hub: after a lost broker `get_event_loop()` is None for good (kombu 5.7)."""
        self.hub = get_event_loop()

    def wake(self) -> None:
        """Have the consumer look again whether it may take a nudge."""
        self.call(lambda: None)

    def call(self, callback: Callable[[], None]) -> None:
        """Have the consumer's own thread call something when it comes to that."""
        if self.hub is not None:
            self.hub.call_soon(callback)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        error_callback: Any = None,
        **_: Any,
    ) -> ApplyResult:
        """Run in a thread; whatever is raised is reported, or Celery counts the slot for ever."""

        def run() -> None:
            try:
                apply_target(target, args, kwargs, callback, accept_callback)
            except Exception:
                log.exception("a nudge broke its thread")
                if error_callback is not None:
                    error_callback(ExceptionInfo())

        return ApplyResult(self.executor.submit(run))


class Duty(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the node with Celery's worker and stops it before the pool."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        self.node: Node | None = None
        worker.node = None
        super().__init__(worker, **kwargs)

    def start(self, worker: Any) -> None:
        """Start the node; a full slot list closes the consumer's gate."""
        # Raised at each lost connection for a setting that only concerns acks.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        config = configuration.load()
        supervisor = Supervisor()
        url = url_of(config)
        worker.app.conf.broker_url = settings(config, url)["broker_url"]
        node = Node(config, url, slots=worker.concurrency)
        worker.node = worker.app.node = self.node = node
        node.runner.slots.on_free = worker.pool.wake
        signals.worker_shutting_down.connect(self._on_signal, weak=False)
        node.start()
        node.watch(supervisor, worker.pool)

    def _on_signal(self, **_: Any) -> None:
        if self.node is not None:
            self.node.close()

    def stop(self, worker: Any) -> None:
        """Leave running jobs to their shims, or wait for them if that was asked."""
        if self.node is not None:
            self.node.stop()
            self.node = None

    terminate = stop


class Gate(bootsteps.StartStopStep):  # type: ignore[misc]
    """Lets the consumer take a nudge only while a slot is free and the broker knows this host.

    Put on again at every reconnect, when Celery makes a new channel.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Put the gate before the channel."""
        runner = consumer.controller.node.runner
        qos = consumer.task_consumer.channel.qos
        qos.can_consume = lambda: runner.takes_nudges


def once(config: Config, broker_url: str) -> int:
    """Run what is queued for this host, slot by slot, until nothing is left; returns how many."""
    node = Node(config, broker_url)
    node.start(pull=False)
    try:
        if not node.runner.may_claim.wait(_PATIENCE):
            raise BrokerUnavailable("the broker doesn't answer", hint="relayq status")
        slots = node.runner.slots.total
        with ThreadPoolExecutor(slots) as pool:
            return sum(pool.map(_drain, [node.runner] * slots))
    finally:
        node.stop()


def _drain(runner: Runner) -> int:
    """Work in one slot until nothing is queued and nothing runs that could still queue more."""
    done = 0
    while True:
        worked = False
        if runner.slots.take():
            try:
                worked = runner.work()
            finally:
                runner.slots.give_back()
        done += worked
        if not worked and not runner.attempts():
            return done
        if not worked:
            clock.sleep(0.1)


def start(config: Config, *, is_service: bool = False) -> int:
    """Be a worker until told to stop; returns the process's exit code.

    As a service it takes over from one in the background, and its exit code says whether it was
    asked to end: then it isn't started again.
    """
    if is_service:
        embedded.end_worker(config)
    if config.agents:
        # A wrong entry is told now, and not by the first job of an agent.
        from relayq.agents import adapters

        adapters.load(config.adapters)
    from relayq.tasks import app

    # Celery warns every worker of root; who may run what is decided by the fleet's key.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        hostname=f"relayq@{config.worker.name}",
        pool=app.conf.worker_pool,
        concurrency=config.worker.max_concurrent,
        loglevel=config.logging.level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    if is_service and worker.node is not None and worker.node.was_asked:
        return STOPPED
    return int(worker.exitcode or 0)


def main() -> int:
    """Run `python -m relayq.worker`."""
    config = configuration.load()
    set_up_logging(config)
    return start(config)


def set_up_logging(config: Config, *, is_service: bool = False) -> None:
    """Log to stderr, and to the configured file when one was named; a service to one a day."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if config.origins.get("logging.file", "default") != "default":
        config.logging.file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(config.logging.file))
    elif is_service:
        # launchd keeps all that it gets, for ever.
        daily = DailyLog(config.home / "logs", config.worker.name)
        handlers = [daily, *([] if sys.platform == "darwin" else handlers)]
    logging.basicConfig(
        level=config.logging.level,
        handlers=handlers,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Two lines a nudge, which say nothing of the job.
    for chatter in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    logging.getLogger("celery.worker.consumer.consumer").addFilter(TRIES)


if __name__ == "__main__":
    sys.exit(main())
