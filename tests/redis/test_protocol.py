"""The lease protocol, driven at random: two hosts that hang, die, reboot and are cut off, replies
that get lost, cancels and a person's retries, against a plain model of the records.

The model's hosts do what `host/` does: a process runs only while its host's permit is valid, and
starts only after an answered beat. What must hold is in the invariants; `Known` predicts the state
of each job from the answers.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    rule,
    run_state_machine_as_test,
)

from relayq.model.jobs import FINAL, JobState, Token
from relayq.store.leases import Claim
from tests.redis.consistency import problems
from tests.redis.fleet import LEASE
from tests.redis.oracle import BEAT, EXTEND, PARK, PERMIT, Known, Machine
from tests.redis.people import JOBS, People

QUEUED, RUNNING, LOST = JobState.QUEUED, JobState.RUNNING, JobState.LOST
NEEDS_HUMAN, SUCCEEDED = JobState.NEEDS_HUMAN, JobState.SUCCEEDED
FAILED, CANCELLED = JobState.FAILED, JobState.CANCELLED


class Protocol(People):
    """Everything that may happen, one thing at a time."""

    # What workers do.

    @rule(data=st.data(), answered=st.booleans())
    def claim(self, data, answered):
        host = self.pick_host(data, lambda host: host.can_ask and host.registered)
        if host is None:
            return
        claim = host.speaker.ask()
        if isinstance(claim, Claim):
            job = self.jobs[claim.token.id]
            assert job.state is QUEUED, f"claimed what is {job.state}"
            self.check_place(host, job)
            beside = [t for t in host.processes if t.id == claim.token.id]
            assert not beside or job.on_lost == "retry" or job.forced, f"claimed beside {beside}"
            job.go(RUNNING)
            job.token, job.host, job.started = claim.token, host.speaker.name, False
            job.attempts, job.widens_at = job.attempts + 1, None
            if answered:
                host.known[claim.token] = "claimed"
        if not answered:
            host.registered = False

    @rule(data=st.data(), answered=st.booleans())
    def start(self, data, answered):
        """Beat for a claimed attempt, and start its process if that was answered."""
        host = self.pick_host(data, lambda host: host.can_ask and "claimed" in host.known.values())
        if host is None:
            return
        token = next(t for t, phase in host.known.items() if phase == "claimed")
        [word] = host.speaker.beat(token, phase="started")
        self.learn(token, word)
        if not answered:
            host.drop(token)  # abandoned: it never started
        elif word == "ok":
            assert not self.jobs[token.id].cancelled, "started after a cancel was answered"
            host.known[token] = "started"
            host.processes[token] = None
        else:
            if word == "cancel":
                self.finish(host, token, CANCELLED)
            host.drop(token)

    @rule(data=st.data(), on_lost=st.sampled_from(["retry", "ask", "fail"]))
    def run(self, data, on_lost):
        """The usual course, so that most of what is tried happens to running jobs."""
        if len(self.jobs) < JOBS:
            self.submit(data, on_lost)
        self.claim(data, True)
        self.start(data, True)

    @rule(data=st.data(), answered=st.booleans())
    def beat(self, data, answered):
        host = self.pick_host(data, lambda host: host.can_ask)
        if host is None:
            return
        sent = self.now
        if not host.registered and not self.register(host):
            return
        tokens = list(host.known)
        words = [host.speaker.beat(token, phase=host.known[token])[0] for token in tokens]
        for token, word in zip(tokens, words, strict=True):
            self.learn(token, word)
        if not answered:
            host.keep(self.now)
            return
        for token, word in zip(tokens, words, strict=True):
            if word == "stale":
                host.drop(token)
            elif word == "cancel" and token in host.processes:
                host.processes.pop(token, None)
                host.ended[token] = CANCELLED
        host.permit, host.followed, host.registered = max(host.permit, sent + PERMIT), True, True

    @rule(data=st.data(), state=st.sampled_from([SUCCEEDED, FAILED]))
    def end(self, data, state):
        """A process that isn't frozen comes to its end."""
        host = self.pick_host(data, lambda host: host.processes and self.runs(host))
        if host is not None:
            tokens = list(host.processes)
            token = tokens[data.draw(st.integers(0, len(tokens) - 1))]
            host.processes.pop(token, None)
            host.ended[token] = state

    @rule(data=st.data(), answered=st.booleans())
    def deliver(self, data, answered):
        host = self.pick_host(data, lambda host: host.can_ask and host.ended)
        if host is None:
            return
        token, state = next(iter(host.ended.items()))
        word = self.finish(host, token, state)
        if answered:
            if word == "stale":
                host.speaker.lose(token)
            host.drop(token)

    # What goes wrong.

    @rule(data=st.data())
    def hang_or_wake(self, data):
        host = self.pick_host(data, lambda host: host.worker != "dead")
        if host is not None:
            host.worker = "up" if host.worker == "hung" else "hung"

    @rule(data=st.data())
    def die(self, data):
        host = self.pick_host(data, lambda host: host.worker != "dead")
        if host is not None:
            host.worker = "dead"
            host.known.clear()

    @rule(data=st.data())
    def stop(self, data):
        """A planned stop parks the leases and the permit."""
        host = self.pick_host(data, lambda host: host.can_ask and host.followed)
        if host is None:
            return
        sent, tokens = self.now, list(host.known)
        word, words = host.speaker.park_all(*tokens)
        if word == "ok":
            for token, answer in zip(tokens, words, strict=True):
                self.learn(token, answer)
                if answer != "ok":
                    host.drop(token)
                if answer == "cancel":
                    host.ended[token] = CANCELLED
            host.permit = max(host.permit, sent + PARK - BEAT)
        host.worker = "dead"
        host.known.clear()

    @rule(data=st.data(), reboot=st.booleans())
    def come_back(self, data, reboot):
        host = self.pick_host(data, lambda host: host.worker == "dead")
        if host is None:
            return
        if reboot:
            self.boots += 1
            host.speaker = host.speaker.rebooted(f"boot-{self.boots}")
            host.processes.clear()
            host.permit = 0.0
        host.worker, host.registered, host.followed = "up", False, False
        host.known = dict.fromkeys([*host.processes, *host.ended], "started")
        host.permit = min(host.permit, self.now + PERMIT)
        if host.linked:
            self.register(host)

    @rule(data=st.data())
    def cut_or_heal(self, data):
        host = self.pick_host(data, lambda host: True)
        host.linked = not host.linked
        if host.linked:
            host.healed_at = self.now

    @rule(data=st.data())
    def lose_a_shim(self, data):
        """A shim is killed with its tree; its worker sees that, or the next one."""
        host = self.pick_host(
            data, lambda host: host.can_ask and host.processes.keys() & host.known.keys()
        )
        if host is None:
            return
        token = next(token for token in host.processes if token in host.known)
        self.lose(host, token)
        host.drop(token)

    @rule(duration=st.sampled_from([1, 10, 20, 40, 50, 70, 130, 1000]))
    def pass_time(self, duration):
        """Let time pass; a worker that is up and cut off keeps a valid permit valid."""
        left = float(duration)
        while left > 0:
            step = min(left, EXTEND / 3)
            self.clock.advance(step)
            left -= step
            for host in self.hosts:
                if not host.linked:
                    host.keep(self.now)

    @rule(
        fault=st.sampled_from(["cut", "hang", "die"]),
        data=st.data(),
        on_lost=st.sampled_from(["retry", "ask", "fail"]),
    )
    def vanish_until_judged(self, fault, data, on_lost):
        """A host that runs something isn't heard of until the verdict on it has fallen."""
        self.run(data, on_lost)
        host = self.pick_host(data, lambda host: host.processes and host.worker == "up")
        if host is None:
            return
        if fault == "cut":
            host.linked = False
        else:
            host.worker = {"hang": "hung", "die": "dead"}[fault]
            host.known = host.known if fault == "hang" else {}
        for duration in (70, 70, 1000):
            self.pass_time(duration)
            self.tick()

    @rule()
    def tick(self):
        for word, id in self.fleet.tick():
            job = self.jobs[id]
            if word == "widened":
                job.widen(self.now)
            elif word == "unclaimed":
                assert job.attempts == 0, f"{id} expired after it was claimed"
                assert job.expires_at is not None
                assert job.expires_at <= self.now
                job.go(FAILED)
                self.end_beside(id)
            elif word == "expired":
                assert job.state is RUNNING
                if job.started and not job.cancelled:
                    job.go(LOST)
                elif job.started:
                    job.go(self.settled(id))
                else:
                    self.judge(job)
            elif word == "judged":
                self.judge(job)

    # The invariants.

    @invariant()
    def records_are_as_predicted(self):
        if not hasattr(self, "jobs"):
            return
        actual = {id: self.fleet.state(id) for id in self.jobs}
        assert actual == {id: job.state for id, job in self.jobs.items()}

    @invariant()
    def ask_and_fail_jobs_never_run_twice_at_a_time(self):
        for id, job in getattr(self, "jobs", {}).items():
            running = [h for h in self.hosts if self.runs(h) for t in h.processes if t.id == id]
            if job.on_lost != "retry" and not job.forced:
                assert len(running) <= 1, f"{id} runs {len(running)} times"

    @invariant()
    def an_older_attempt_runs_on_only_where_its_host_was_cut_off(self):
        for host in getattr(self, "hosts", []):
            for token in host.processes:
                job = self.jobs[token.id]
                if not self.runs(host) or job.token == token or job.forced:
                    continue
                was_cut = not host.linked or host.healed_at + EXTEND > self.now - 1
                assert was_cut, f"{token} runs beside {job.token}"

    def teardown(self):
        """After everything is healed, every job comes to its end, and nothing is left over."""
        if not hasattr(self, "hosts"):
            return
        self.resume()
        for host in self.hosts:
            self.store.hosts.drain(host.speaker.name, undo=True)
            host.drained, host.linked = False, True
            if host.worker == "dead":
                host.known = dict.fromkeys([*host.processes, *host.ended], "started")
                host.followed = False
            host.worker, host.registered = "up", False
        for _ in range(60):
            if all(job.state in FINAL | {NEEDS_HUMAN} for job in self.jobs.values()):
                break
            for host in self.hosts:
                self.settle_all(host)
            self.clock.advance(10)
            self.tick()
        ends = FINAL | {NEEDS_HUMAN}
        stuck = [self.fleet.record(id) for id, job in self.jobs.items() if job.state not in ends]
        assert not stuck, f"stuck: {stuck}"
        assert not problems(self.store)

    def settle_all(self, host: Machine) -> None:
        """Do what a healthy worker does in ten seconds: beat, end, deliver, claim and start."""
        if not host.registered and not self.register(host):
            return
        host.registered = host.followed = True
        for token, phase in list(host.known.items()):
            [word] = host.speaker.beat(token, phase=phase)
            self.learn(token, word)
            if word == "stale" or phase == "claimed":
                host.drop(token)
            elif token in host.processes:
                host.processes.pop(token, None)
                host.ended[token] = SUCCEEDED
        for token, state in list(host.ended.items()):
            if self.finish(host, token, state) == "stale":
                host.speaker.lose(token)
            host.drop(token)
        claim = host.speaker.ask()
        if isinstance(claim, Claim):
            job = self.jobs[claim.token.id]
            self.check_place(host, job)
            job.go(RUNNING)
            job.token, job.host, job.started = claim.token, host.speaker.name, False
            job.attempts, job.widens_at = job.attempts + 1, None
            [word] = host.speaker.beat(claim.token, phase="started")
            self.learn(claim.token, word)
            host.known[claim.token] = "started"
            host.ended[claim.token] = SUCCEEDED if word == "ok" else CANCELLED

    # What the rules share.

    def judge(self, job: Known) -> None:
        job.judge()
        if job.state is QUEUED:
            job.enter(self.now)

    def check_place(self, host: Machine, job: Known) -> None:
        """Whether this host may claim that job now."""
        name = host.speaker.name
        assert not host.drained
        assert host.paused_until < self.now + 1
        if job.leader is not None:
            assert self.jobs[job.leader].host == name
        else:
            assert job.queue in ("any", f"host.{name}")

    def runs(self, host: Machine) -> bool:
        """Whether processes of this host aren't frozen."""
        return host.permit > self.now

    def settled(self, id: str) -> JobState:
        return self.fleet.state(id)

    def learn(self, token: Token, word: str) -> None:
        """Predict what a beat did to the record, from its answer."""
        job = self.jobs[token.id]
        if word == "stale":
            assert not job.holds(token), f"stale, yet {token} holds the lease"
            return
        assert job.holds(token), f"{word} for {token}, which doesn't hold the lease"
        job.go(RUNNING)
        if word == "ok":
            assert not job.cancelled
            phase = self.store.connection.hget(self.fleet.key("job", token.id), "phase")
            job.started = phase == b"started"
        else:
            assert job.cancelled

    def finish(self, host: Machine, token: Token, state: JobState) -> str:
        job = self.jobs[token.id]
        held = job.holds(token)
        word = host.speaker.finish(token, state, reason="exit")
        if held:
            assert word == (CANCELLED if job.cancelled else state)
            job.go(JobState(word))
        else:
            assert word in ("stale", "already"), word
        return word

    def lose(self, host: Machine, token: Token) -> None:
        job = self.jobs[token.id]
        held = job.holds(token)
        word = host.speaker.lose(token)
        if held:
            self.judge(job)
            assert word == job.state
        else:
            assert word == "stale"

    def register(self, host: Machine) -> bool:
        word, claimed = host.speaker.register()
        if word != "ok":
            return False
        for token in claimed:
            if token not in host.known:
                self.lose(host, token)
        host.registered = True
        return True


@pytest.mark.parametrize("connection", ["redis7"], indirect=True)
def test_no_order_of_faults_breaks_what_is_promised(store, clock):
    class Driven(Protocol):
        pass

    Driven.store, Driven.clock = store, clock
    run_state_machine_as_test(
        Driven,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            # A story takes minutes to shrink, and is short enough to read.
            phases=[Phase.generate],
            print_blob=True,
        ),
    )
    assert LEASE > PERMIT + EXTEND - 1
