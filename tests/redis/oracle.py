"""A plain model of one job's record, and of one host: what the random stories are held against."""

from __future__ import annotations

from dataclasses import dataclass, field

from relayq.model.jobs import JobState, Token
from relayq.model.moves import MOVES
from tests.redis.fleet import CRASH_LIMIT, FleetHost

QUEUED, RUNNING, LOST = JobState.QUEUED, JobState.RUNNING, JobState.LOST
NEEDS_HUMAN, FAILED, CANCELLED = JobState.NEEDS_HUMAN, JobState.FAILED, JobState.CANCELLED

#: Seconds.
BEAT, PERMIT, EXTEND, PARK = 15.0, 45.0, 15.0, 900.0
UNSTARTED_LIMIT = 5


@dataclass
class Known:
    """What the oracle knows of a job: its state, and what decides the next one."""

    on_lost: str
    state: JobState = QUEUED
    token: Token | None = None
    host: str = ""
    started: bool = False
    cancelled: bool = False
    losses: int = 0
    unstarted: int = 0
    #: Ever retried by a person who said that the old attempt is gone.
    forced: bool = False
    #: Where it waits: a queue, or for the host of this job (`leader`).
    queue: str = "any"
    leader: str | None = None
    #: When it fails if nobody took it, and when it leaves the host that it prefers.
    expires_at: float | None = None
    widens_at: float | None = None
    #: How long it waits for that host, each time that it is queued; None once it has widened.
    overflow: float | None = None
    attempts: int = 0

    def go(self, state: JobState) -> None:
        """Change the state, which must be one of the moves."""
        assert state is self.state or state in MOVES[self.state], f"{self.state} -> {state}"
        self.state = state

    def enter(self, now: float) -> None:
        """Begin to wait, from now on."""
        self.widens_at = None if self.overflow is None else now + self.overflow

    def widen(self, now: float) -> None:
        """Leave the host that it preferred."""
        assert self.state is QUEUED
        assert self.widens_at is not None
        assert self.widens_at <= now
        self.queue, self.overflow, self.widens_at = "any", None, None

    def holds(self, token: Token) -> bool:
        """Whether the token is that of the current attempt."""
        return self.token == token and self.state in (RUNNING, LOST)

    def judge(self) -> None:
        """Give the verdict on an attempt that is gone or counts as gone."""
        if self.cancelled:
            self.go(CANCELLED)
        elif not self.started and self.unstarted < UNSTARTED_LIMIT:
            self.unstarted += 1
            self.go(QUEUED)
        else:
            self.losses += 1
            if self.on_lost == "retry" and self.losses < CRASH_LIMIT:
                self.go(QUEUED)
            else:
                self.go(NEEDS_HUMAN if self.on_lost == "ask" else FAILED)
        self.started = False

    def queue_again(self) -> None:
        """Forget all counts: a person's retry."""
        self.go(QUEUED)
        self.losses = self.unstarted = 0
        self.cancelled = self.started = False


@dataclass
class Machine:
    """One host: its worker process, its link, its permit, and the processes under its shims."""

    speaker: FleetHost
    worker: str = "up"
    linked: bool = True
    registered: bool = True
    #: Whether this worker process was ever answered.
    followed: bool = True
    permit: float = 0.0
    #: When the link came back.
    healed_at: float = -1e9
    drained: bool = False
    paused_until: float = 0.0
    known: dict[Token, str] = field(default_factory=dict)
    #: In the order of their start: ids are random, and a story must be repeatable.
    processes: dict[Token, None] = field(default_factory=dict)
    ended: dict[Token, JobState] = field(default_factory=dict)

    @property
    def can_ask(self) -> bool:
        """Whether its worker gets an answer."""
        return self.worker == "up" and self.linked

    def keep(self, now: float) -> None:
        """Extend a permit that still stands, as a worker does that isn't answered."""
        if self.worker == "up" and self.followed and self.permit > now:
            self.permit = max(self.permit, now + EXTEND)

    def drop(self, token: Token) -> None:
        self.known.pop(token, None)
        self.processes.pop(token, None)
        self.ended.pop(token, None)
