"""Stands back for the machine's owner and for people's wishes: takes nothing new, freezes jobs.

The decisions are made in `model/courtesy.py`; here they take effect, through the claim's gate and
the shims' control files. A person's wish comes with the beats and stands until the next one, or its
own end, whether the broker answers or not. A job's lease goes on while it stands still.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from relayq import clock
from relayq.host.awake import Inhibitor, holding_argv
from relayq.host.bedtime import NIGHTS, Bedtime
from relayq.host.delivery import Attempt
from relayq.host.runner import Runner
from relayq.host.sensors import Sensors
from relayq.model.courtesy import Memory, Rules, decide
from relayq.model.jobs import Token
from relayq.store.pauses import Wish, Wishes

log = logging.getLogger(__name__)

#: A worker without a job, or whose jobs stand still anyway, looks less often by this factor.
_SELDOM = 4
#: For how many looks without a job the machine is still kept awake: the next one may soon begin.
_LINGER = 4
#: How the reason for a person's pause begins.
_BY_A_PERSON = "paused "


class _Standing:
    """A wish that stands, with its end on the boot clock."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.ends_at = None if wish.left is None else clock.boottime() + wish.left

    @property
    def left(self) -> float | None:
        return None if self.ends_at is None else self.ends_at - clock.boottime()

    @property
    def is_over(self) -> bool:
        return self.left is not None and self.left <= 0


class Governor:
    """One worker's courtesy; `on_change` is called when its next beat has something to tell."""

    def __init__(self, runner: Runner) -> None:
        config = runner.config
        self.on_change: Callable[[], None] = lambda: None
        self._runner = runner
        self._rules = Rules.of(config)
        self._sensors: Sensors | None = None
        self._awake = Inhibitor(holding_argv()) if config.worker.keep_awake else None
        self._every = config.worker.pause.look
        self._memory = Memory()
        self._looked_at = -inf
        self._others: float | None = None
        self._is_seldom = False
        #: Whether it is known what this machine is up to; until then nothing new is taken.
        self._has_looked = False
        self._host_wish: _Standing | None = None
        self._job_wishes: dict[Token, _Standing] = {}
        #: Before the first answer nobody knows which of the adopted jobs a person paused.
        self._has_heard = False
        self._bedtime = Bedtime(self._on_bedtime) if config.worker.drain_on_sleep else None
        self._awake_until = -inf
        self._shown = self._told = ("ok", "")
        self._since = clock.now()
        self._wake = threading.Event()
        self._lock = threading.RLock()

    def prepare(self, *, measures: bool) -> None:
        """Get ready to `run`; without measuring, only wishes count."""
        with self._lock:
            self._has_looked = not measures
            self._runner.rest(measures)

    def run(self, leaving: threading.Event) -> None:
        """Measure and act until the worker leaves."""
        if not self._has_looked:
            self._begin()
        while not leaving.is_set():
            self._wake.wait(self._patience())
            self._wake.clear()
            if leaving.is_set():
                break
            try:
                self.look()
            except Exception:
                log.exception("a look at this machine failed")
                self._has_looked = True
        self._end()

    def _end(self) -> None:
        if self._awake is not None:
            self._awake.release()
        if self._sensors is not None:
            self._sensors.close()
        if self._bedtime is not None:
            self._bedtime.close()

    def _begin(self) -> None:
        self._sensors = Sensors(self._rules, self._roots, self._every)
        if any(attempt.pause for attempt in self._runner.attempts()):
            self._memory = Memory.of_frozen_jobs()
            # Of the CPU nothing is known yet.
            self._looked_at = clock.boottime()
        if self._bedtime is not None:
            self._bedtime.listen()

    def stop_waiting(self) -> None:
        """Have `run` look at once, or end."""
        self._wake.set()

    def expect_job(self) -> None:
        """Have `run` look often from now on: a job begins."""
        if self._is_seldom:
            self._wake.set()

    def look(self) -> None:
        """Take one reading if that is due, and act."""
        if self._bedtime is not None:
            self._bedtime.look()
        wait, at = self._interval(), clock.boottime()
        # Sooner, the CPU's reading would say nothing: its clock ticks in hundredths of a second.
        if self._sensors is not None and at - self._looked_at >= min(wait, self._every) * 0.9:
            self._looked_at = at
            reading = self._sensors.read(patience=wait / self._every)
            with self._lock:
                self._others = reading.others
                self._memory = decide(self._memory, reading, self._rules, clock.boottime())
                self._has_looked = True
        self._act()
        self._keep_awake()

    def hear(self, attempts: Sequence[Attempt], wishes: Wishes) -> None:
        """Take in what people asked for, of the host and of each of these attempts."""
        with self._lock:
            self._has_heard = True
            self._host_wish = _Standing(wishes.host) if wishes.host else None
            self._job_wishes = {
                attempt.token: _Standing(wish)
                for attempt, wish in zip(attempts, wishes.attempts, strict=True)
                if wish is not None
            }
            if self._host_wish is None and self._runner.is_barred:
                # The broker barred this host until it learned that the pause is over.
                self._runner.eager.set()
            if self._bedtime is not None:
                self._bedtime.told(self._told[1])
        self._act()
        if any(one.left is not None for one in self._standing()):
            self._wake.set()

    def as_dict(self) -> Mapping[str, Any]:
        """Return how the host stands, for its record."""
        self._told = state, reason = self._shown
        return {"state": state, "reason": reason, "since": round(self._since, 3)}

    def shared(self, load: dict[str, Any]) -> dict[str, Any]:
        """Return a load with its CPU told apart as far as known: `own` work, and `others`."""
        total, others = load["cpu"], self._others
        if others is None:
            return load
        # Of two instants: the machine's is measured at the beat, the others' at the last look.
        others = round(min(others, total), 1)
        return {**load, "cpu": {"own": round(total - others, 1), "others": others}}

    def _standing(self) -> list[_Standing]:
        wishes = list(self._job_wishes.values())
        return [*wishes, self._host_wish] if self._host_wish is not None else wishes

    def _patience(self) -> float:
        """Return the seconds until something is due: a look, or the end of a pause."""
        with self._lock:
            lefts = [one.left for one in self._standing() if one.left is not None]
        at, wait = clock.boottime(), self._interval()
        due = self._looked_at + wait - at if self._sensors is not None else wait
        return max(0.01, min([due, *lefts]))

    def _interval(self) -> float:
        """Return the seconds between two looks."""
        # Before the look at the attempts: `expect_job` must not miss that it is to wake us.
        self._is_seldom = True
        with self._lock:
            objects, decision = bool(self._memory.counts), self._memory.decision
        # What begins to speak against jobs, or has just ceased to, is to be known soon.
        is_pressing = bool(self._runner.attempts()) or (objects and decision.takes_work)
        self._is_seldom = not is_pressing or (decision.freezes and objects)
        return self._every * _SELDOM if self._is_seldom else self._every

    def _roots(self) -> list[int]:
        """Return the pids that everything of ours is below: adopted shims aren't ours by birth."""
        shims = [a.shim.run_facts() for a in self._runner.attempts() if a.shim and a.is_adopted]
        return [os.getpid(), *(facts.shim for facts in shims if facts is not None)]

    def _on_bedtime(self) -> None:
        self._act()
        self._wake.set()

    def _act(self) -> None:
        """Open or close the gate, freeze or thaw; then have the broker told."""
        with self._lock:
            if self._host_wish is not None and self._host_wish.is_over:
                self._host_wish = None
            self._job_wishes = {t: one for t, one in self._job_wishes.items() if not one.is_over}
            state, reason = self._stand()
            has_changed = self._show(state, reason)
            self._runner.rest(state != "ok" or not self._has_looked)
            # Until the first look nobody knows whether what was found frozen is to go on.
            if self._has_heard and self._has_looked:
                why = {"paused": f"{_BY_A_PERSON}{reason}", "frozen": reason}.get(state, "")
                has_changed |= self._freeze_or_thaw(why)
        if has_changed:
            self.on_change()

    def _stand(self) -> tuple[str, str]:
        """Return how the host stands, and why: what stops the most comes first."""
        decision = self._memory.decision
        if self._host_wish is not None:
            return "paused", str(self._host_wish.wish)
        if decision.freezes:
            return "frozen", decision.reason
        if self._bedtime is not None and (night := self._bedtime.reason):
            return "no_new_work", night
        return ("ok", "") if decision.takes_work else ("no_new_work", decision.reason)

    def _show(self, state: str, reason: str) -> bool:
        """Have the next beat say so; returns whether it has something new to tell."""
        if self._runner.draining.is_set():
            state, reason = "drained", "its worker is stopping"
        before, self._shown = self._shown, (state, reason)
        if state != before[0]:
            self._since = clock.now()
            log.info("%s%s", state.replace("_", " "), f": {reason}" if reason else "")
        # A percentage changes with each look, what the machine is about to do hardly ever.
        return state != before[0] or (reason in NIGHTS) != (before[1] in NIGHTS)

    def _freeze_or_thaw(self, frozen: str) -> bool:
        """Have each attempt stand still that should; says whether there is something to tell."""
        has_changed = False
        for attempt in self._runner.attempts():
            if attempt.shim is None:
                continue
            wish = self._job_wishes.get(attempt.token)
            why = f"{_BY_A_PERSON}{wish.wish}" if wish is not None else frozen
            before = attempt.pause
            if bool(why) != bool(before):
                try:
                    attempt.shim.freeze() if why else attempt.shim.thaw()
                except OSError as error:
                    # A full disk: the next look tries again.
                    log.warning("can't pause or resume %s: %s", attempt.token.id, error)
                    continue
                word = f"froze ({why})" if why else "thawed"
                log.info("%s %s", word, attempt.token.id, extra={"job": attempt.token.id})
            attempt.pause = why
            # Who resumes a job must learn at once that its host has a reason of its own.
            has_changed |= bool(why) != bool(before) or (
                why.startswith(_BY_A_PERSON) != before.startswith(_BY_A_PERSON)
            )
        return has_changed

    def _keep_awake(self) -> None:
        if self._awake is None:
            return
        at = clock.boottime()
        if any(a.shim is not None and not a.pause for a in self._runner.attempts()):
            self._awake.hold()
            self._awake_until = at + _LINGER * self._every
        elif at >= self._awake_until:
            self._awake.release()
