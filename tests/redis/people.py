"""What people do in the random stories of the lease protocol, and the model of it all."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from relayq.model.jobs import FINAL, JobState
from relayq.model.placement import Placement
from relayq.store import Store
from tests.redis.fleet import Clock, Fleet, spec
from tests.redis.oracle import PERMIT, Known, Machine

QUEUED, RUNNING, LOST = JobState.QUEUED, JobState.RUNNING, JobState.LOST
NEEDS_HUMAN, SUCCEEDED = JobState.NEEDS_HUMAN, JobState.SUCCEEDED
FAILED, CANCELLED = JobState.FAILED, JobState.CANCELLED

JOBS = 5


class People(RuleBasedStateMachine):
    """A fleet of two hosts, and who submits, cancels, retries, drains and pauses."""

    store: Store
    clock: Clock

    @initialize()
    def begin(self):
        self.store.connection.flushdb()
        self.clock.offset = 0.0
        self.fleet = Fleet(self.store, self.clock)
        self.hosts = [Machine(self.fleet.host(name)) for name in ("pi4", "mini")]
        for host in self.hosts:
            host.permit = self.now + PERMIT
        self.jobs: dict[str, Known] = {}
        self.boots = 1

    @property
    def now(self) -> float:
        return self.fleet.now()

    # What people do.

    @precondition(lambda self: len(self.jobs) < JOBS)
    @rule(
        data=st.data(),
        on_lost=st.sampled_from(["retry", "ask", "fail"]),
        where=st.sampled_from(["any", "any", "host", "prefer", "beside"]),
        expires=st.sampled_from([None, None, 30.0, 200.0]),
    )
    def submit(self, data, on_lost, where="any", expires=None):
        host = data.draw(st.sampled_from(["pi4", "mini"]))
        job = Known(on_lost)
        options, placements = {"on_lost": on_lost, "expires": expires}, []
        if where == "beside" and self.jobs:
            options["with_job"], leader = self.pick(data)
            job.leader = options["with_job"]
            if leader.state in (FAILED, CANCELLED) and not leader.host:
                job.state = FAILED
        elif where == "host":
            options["host"], job.queue = host, f"host.{host}"
        elif where == "prefer":
            options["prefer"], job.queue, job.overflow = host, f"host.{host}", 45.0
            placements = [Placement(job.queue, host=host, wide="any", overflow=45.0)]
        one = spec(**options)
        [placed] = self.fleet.dispatcher.submit([one], placements=placements)
        assert placed.state is job.state
        if expires is not None:
            job.expires_at = self.fleet.record(one.id).expires_at
        if job.state is QUEUED:
            job.enter(self.now)
        self.jobs[one.id] = job

    @rule(data=st.data(), undo=st.booleans())
    def drain(self, data, undo):
        """Have a host take nothing new, or all of them take work again."""
        for host in self.hosts if undo else [self.pick_host(data, lambda host: True)]:
            self.store.hosts.drain(host.speaker.name, undo=undo)
            host.drained = not undo

    @rule(data=st.data(), seconds=st.sampled_from([20, 60]), fleet=st.booleans())
    def pause(self, data, seconds, fleet):
        host = self.pick_host(data, lambda host: True)
        assert host is not None
        self.store.pauses.pause(host="" if fleet else host.speaker.name, seconds=seconds)
        for paused in self.hosts if fleet else [host]:
            paused.paused_until = max(paused.paused_until, self.now + seconds)

    @rule()
    def resume(self):
        for name in ("", "pi4", "mini"):
            self.store.pauses.resume(host=name)
        for host in self.hosts:
            host.paused_until = 0.0

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), seldom=st.booleans())
    def cancel(self, data, seldom):
        if seldom:
            return
        id, job = self.pick(data)
        self.fleet.cancel(id)
        if job.state in (RUNNING, LOST):
            job.cancelled = True
        elif job.state not in FINAL:
            job.go(CANCELLED)
            self.end_beside(id)

    @precondition(lambda self: any(job.state in FINAL | {NEEDS_HUMAN} for job in self.ours))
    @rule(data=st.data(), force=st.booleans())
    def retry(self, data, force):
        id, job = self.pick(data, lambda job: job.state in FINAL | {NEEDS_HUMAN})
        running = [host for host in self.hosts if any(t.id == id for t in host.processes)]
        word, _ = self.fleet.retry(id, force=force)
        if word == "queued":
            if running and job.on_lost != "retry":
                # A person's word that it is gone holds for all further retries.
                assert force or job.forced, f"{id} was retried while it may still run"
                job.forced = True
            job.queue_again()
            job.expires_at = None
            job.enter(self.now)
            leader = self.jobs[job.leader] if job.leader else None
            if leader and leader.state in (FAILED, CANCELLED) and not leader.host:
                job.leader, job.queue = None, "any"
        else:
            assert word == "orphan"
            assert not force

    @precondition(lambda self: any(job.state is NEEDS_HUMAN for job in self.ours))
    @rule(data=st.data(), state=st.sampled_from([SUCCEEDED, FAILED]))
    def resolve(self, data, state):
        id, job = self.pick(data, lambda job: job.state is NEEDS_HUMAN)
        assert self.fleet.resolve(id, state) == state
        job.go(state)

    # What the rules share.

    def end_beside(self, id: str) -> None:
        """Predict what becomes of those that wait for the host of a job that ended."""
        for other, job in self.jobs.items():
            if job.leader == id and job.state is QUEUED and not self.jobs[id].host:
                job.go(FAILED)
                self.end_beside(other)

    @property
    def ours(self) -> list[Known]:
        return list(getattr(self, "jobs", {}).values())

    def pick(self, data, fits=lambda job: True):
        ids = [id for id, job in self.jobs.items() if fits(job)]
        id = ids[data.draw(st.integers(0, len(ids) - 1))]
        return id, self.jobs[id]

    def pick_host(self, data, fits):
        fitting = [host for host in self.hosts if fits(host)]
        return fitting[data.draw(st.integers(0, len(fitting) - 1))] if fitting else None
