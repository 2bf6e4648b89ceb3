"""A small fleet for tests: a clock to advance, hosts that claim and finish, jobs in any state."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from relayq.dispatch import TEMPLATE, Dispatcher
from relayq.model.hosts import queues_of
from relayq.model.jobs import JobRecord, JobState, Outcome, Spec, Token, new_id
from relayq.signing import Signer
from relayq.store import Store
from relayq.store.leases import Claim, Keep, Registration, Times

LEASE = 60.0
LOST_MIN = 30.0
LOST_MAX = 900.0
CRASH_LIMIT = 3
KEEP = 30 * 86_400.0
KEPT = Keep(age=KEEP, jobs=10**6)
TIMES = Times(lease=LEASE, lost_min=LOST_MIN, lost_max=LOST_MAX, crash_limit=CRASH_LIMIT, gap=30.0)


class Clock:
    """Shifts the store's clock, which is Redis' own."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds


@dataclass
class Fleet:
    """Who asks: submits, looks, cancels, retries, and lets time pass."""

    store: Store
    clock: Clock
    signer: Signer = field(default_factory=lambda: Signer(b"k" * 32))

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(self.store, self.signer)

    def now(self) -> float:
        seconds, micros = self.store.connection.time()
        return seconds + micros / 1e6 + self.clock.offset

    def key(self, name: str, suffix: str = "") -> str:
        return self.store.keys(name, suffix)

    def host(self, name: str = "pi4", *, install: str = "", boot: str = "boot-1") -> FleetHost:
        """Return a host that has registered."""
        who = Registration(name, install or f"install-of-{name}", boot)
        host = FleetHost(self, who)
        assert host.register()[0] == "ok"
        return host

    def submit(self, **options: Any) -> str:
        """Submit a job, and return its id."""
        [id] = self.submit_all([spec(**options)])
        return id

    def submit_all(self, specs: list[Spec]) -> list[str]:
        self.dispatcher.submit(specs)
        return [one.id for one in specs]

    def record(self, id: str) -> JobRecord:
        return self.store.jobs.fetch(id)

    def state(self, id: str) -> JobState:
        return self.record(id).state

    def states(self, *ids: str) -> list[JobState]:
        return [record.state for record in self.store.jobs.fetch_many(ids)]

    def cancel(self, id: str) -> tuple[str, str | None]:
        return self.store.jobs.cancel(id)

    def retry(self, id: str, *, force: bool = False) -> tuple[str, str | None]:
        return self.store.jobs.retry(id, template=TEMPLATE, force=force)

    def resolve(self, id: str, state: JobState, *, note: str = "") -> str:
        return self.store.jobs.resolve(id, state, template=TEMPLATE, note=note)

    def tick(
        self,
        times: Times | None = TIMES,
        *,
        keep: Keep | None = KEPT,
        is_regular: bool = True,
        limit: int = 100,
    ) -> list[tuple[str, str]]:
        """Tick as a fleet does that has ticked all the time, or not (`is_regular`)."""
        if is_regular and self.store.connection.hexists(self.key("meta"), "ticked"):
            self.store.connection.hset(self.key("meta"), "ticked", self.now())
        return self.store.leases.tick(times, template=TEMPLATE, keep=keep, limit=limit)

    def expire(self) -> list[tuple[str, str]]:
        """Let every lease that nobody renews run out."""
        self.clock.advance(LEASE + 1)
        return self.tick()

    def judge(self) -> list[tuple[str, str]]:
        """Let every verdict on a lost job fall."""
        self.clock.advance(LOST_MAX + 1)
        return self.tick()

    def lose(self, host: FleetHost, id: str) -> Token:
        """Start the job on the host, never hear of it again, and let the verdict fall."""
        token = host.start(id)
        self.expire()
        self.judge()
        return token

    def nudges(self, queue: str = "any") -> list[dict[str, Any]]:
        """Return the messages on a queue's list in the order in which a worker takes them."""
        rows = self.store.connection.lrange(self.key("nudges", queue), 0, -1)
        return [json.loads(row) for row in reversed(rows)]

    def pending_end(self, id: str) -> dict[str, bytes | None]:
        """Return what somebody who waits for the job is told now."""
        return self.store.jobs.wait([id], patience=0.001)


@dataclass
class FleetHost:
    """Who works: one host's worker."""

    fleet: Fleet
    who: Registration

    @property
    def name(self) -> str:
        return self.who.host

    def register(self, *, key_id: str = "") -> tuple[str, list[Token]]:
        return self.fleet.store.hosts.register(
            self.who,
            lease=LEASE,
            key_id=key_id or self.fleet.signer.key_id,
            slots=2,
            version="0.1.0",
            facts={"os": "linux"},
        )

    def rebooted(self, boot: str = "boot-2") -> FleetHost:
        """Return the same install after a reboot, not yet registered."""
        return FleetHost(self.fleet, Registration(self.who.host, self.who.install, boot))

    def ask(self, *queues: str) -> Claim | str:
        """Claim once, and return what was answered."""
        return self.fleet.store.leases.claim(
            self.who, queues or queues_of(self.name), uid=secrets.token_hex(6), lease=LEASE
        )

    def claim(self, id: str | None = None) -> Token:
        """Claim the next job, which must be this one if an id is given."""
        claim = self.ask()
        assert isinstance(claim, Claim), f"nothing to claim: {claim}"
        assert id in (None, claim.token.id)
        return claim.token

    def start(self, id: str | None = None) -> Token:
        """Claim the next job, and beat until its process may start."""
        token = self.claim(id)
        assert self.beat(token) == ["ok"]
        return token

    def beat(
        self, *tokens: Token, phase: str = "started", lease: float = LEASE, load: str = ""
    ) -> list[str]:
        """Renew, and return a word for each token."""
        pairs = [(token, phase) for token in tokens]
        word, words = self.fleet.store.leases.beat(self.who, pairs, lease=lease, load=load)
        assert word == "ok", word
        return words

    def outcome(self, token: Token, state: JobState, output: bytes = b"") -> bytes:
        outcome = Outcome(
            id=token.id,
            attempt=token.attempt,
            uid=token.uid,
            host=self.name,
            state=state,
            reason="exit",
            output=output,
            output_bytes=len(output),
        )
        return self.fleet.signer.sign_outcome(outcome)

    def finish(
        self,
        token: Token,
        state: JobState = JobState.SUCCEEDED,
        *,
        output: bytes = b"",
        **options: Any,
    ) -> str:
        if state is JobState.SCHEDULED:
            options.setdefault("delay", 1.0)
            options.setdefault("counts", "failures")
        return self.fleet.store.leases.finish(
            token,
            state,
            reason=options.pop("reason", "exit"),
            outcome=self.outcome(token, state, output),
            template=TEMPLATE,
            **options,
        )

    def release(self, token: Token) -> str:
        return self.fleet.store.leases.release(token, template=TEMPLATE)

    def lose(self, token: Token) -> str:
        return self.fleet.store.leases.lose(token, template=TEMPLATE, crash_limit=CRASH_LIMIT)

    def park(self, *tokens: Token, duration: float = 900.0) -> str:
        return self.park_all(*tokens, duration=duration)[0]

    def park_all(self, *tokens: Token, duration: float = 900.0) -> tuple[str, list[str]]:
        """Park, and return a word for each token, too."""
        return self.fleet.store.leases.park(self.who, tokens, duration=duration)

    def run(self, id: str, state: JobState = JobState.SUCCEEDED) -> Token:
        """Run a job to its end."""
        token = self.start(id)
        assert self.finish(token, state) == state
        return token


def spec(**options: Any) -> Spec:
    """Return a job that prints a line."""
    fields: dict[str, Any] = {"id": new_id(), "kind": "run_command", "payload": {"cmd": "echo hi"}}
    return Spec(**fields | options)
