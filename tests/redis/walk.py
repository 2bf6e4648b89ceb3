"""Random things done to a fleet: what the tests of moves and of the sweep are held against."""

from __future__ import annotations

import random
import secrets
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from relayq.dispatch import TEMPLATE
from relayq.errors import Conflict, NoSuchHost, NoSuchJob, Unplaceable
from relayq.host.queues import Queues
from relayq.model.halts import Halt
from relayq.model.jobs import JobState, Token
from relayq.model.moves import ENDS
from relayq.store.leases import Claim
from tests.redis.fleet import KEEP, LEASE, Fleet, FleetHost, spec

SUCCEEDED, FAILED = JobState.SUCCEEDED, JobState.FAILED
HELD = (JobState.RUNNING, JobState.LOST)

#: What hosts can: so that a job with needs has one host, both, or none for now.
FACTS: tuple[dict[str, Any], ...] = (
    {"capabilities": ["ffmpeg"], "resources": {"cuda": 1}},
    {"capabilities": ["ffmpeg", "tape"], "labels": ["heavy"], "resources": {"cuda": 2}},
    {"labels": ["heavy"]},
)
#: Where a job may be sent.
PLACES: tuple[dict[str, Any], ...] = (
    *({}, {}, {}, {"host": "pi4"}, {"host": "mini"}),
    *({"needs": ("ffmpeg",)}, {"needs": ("tape",)}, {"on": ("@heavy",)}),
    *({"resources": {"cuda": 1}}, {"resources": {"cuda": 2}}),
    *({"prefer": "pi4", "overflow": 30.0}, {"prefer": "mini", "needs": ("ffmpeg",)}),
    {"strategy": "least-loaded"},
)
PATIENCE = 30.0
HALTS = (Halt("soon", limit=3, way="soon"), Halt("now", limit=2, counted="done"))
#: Instants that are so near each other aren't told apart here: Redis' clock goes on.
NEAR = 0.5


@dataclass
class Head:
    """The first job of a queue before a claim."""

    id: str
    place: float
    age: float
    wants: str

    def is_held(self) -> bool:
        """Whether its host has no room for it."""
        return self.wants.startswith("!")

    def holds_back(self, other: Head) -> bool:
        """Whether it has waited so long that the other one mustn't take what it waits for."""
        shared = set(self.wants[1:].split()) & set(other.wants.split())
        return self.is_held() and self.age > PATIENCE and self.place < other.place and bool(shared)


class Walk:
    """Does random things to a fleet, and watches each job's state."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.hosts = [fleet.host(name) for name in ("pi4", "mini")]
        self.facts: dict[str, dict[str, Any]] = {}
        self.queues = {host.name: Queues(host.name, {}) for host in self.hosts}
        for host, facts in zip(self.hosts, FACTS, strict=False):
            self._publish(host, facts)
            self.queues[host.name].learn(fleet.store.leases.registry(host.name))
        self.drained: set[str] = set()
        #: Host, or "" for the fleet -> when its pause ends.
        self.paused: dict[str, float] = {}
        self.tokens: list[Token] = []
        self.story: deque[str] = deque(maxlen=15)
        self.submitted = 0
        #: How often each answer was given to a claim.
        self.answers: Counter[str] = Counter()
        #: What is known of all jobs; whoever steps looks again after each step.
        self.states: dict[str, JobState] = {}

    def look(self) -> dict[str, JobState]:
        """Return the state of every job by the indices, which agree with the records."""
        pipe = self.fleet.store.connection.pipeline(transaction=False)
        for state in JobState:
            pipe.zrange(self.fleet.key("state", state), 0, -1)
        indices = zip(JobState, pipe.execute(), strict=True)
        self.states = {id.decode(): state for state, ids in indices for id in ids}
        return self.states

    def step(self) -> None:
        act = self.random.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]
        self.story.append(f"{act} ...")
        said = getattr(self, act)()
        self.story[-1] = f"{act} {said}"

    def job(self) -> str:
        return self.random.choice(sorted(self.states) or ["nosuchjob000"])

    def host(self) -> FleetHost:
        return self.random.choice(self.hosts)

    def token(self) -> Token:
        """Return a token, mostly a recent one, sometimes one that never was."""
        if not self.tokens or self.random.random() < 0.03:
            return Token(self.job(), 1, "another uid")
        recent = self.tokens[-6:] if self.random.random() < 0.7 else self.tokens
        return self.random.choice(recent)

    # What people do.

    def submit(self):
        known = sorted(self.states)
        self.submitted += 1
        after = self.random.sample(known, min(len(known), self.random.choice([0, 0, 1, 2])))
        where = dict(self.random.choice(PLACES))
        if known and "host" not in where and self.random.random() < 0.2:
            where["with_job"] = self.random.choice(known)
        one = spec(
            id=f"{self.submitted:012}",
            priority=self.random.randint(1, 10),
            on_lost=self.random.choice(["retry", "ask", "fail"]),
            due_at=self.fleet.now() + 100 if self.random.random() < 0.2 else None,
            after=tuple(after),
            name=self.random.choice([None, "encode"]),
            group=self.random.choice([None, "films"]),
            unique=self.random.choice([*[None] * 6, "a", "b"]),
            expires=self.random.choice([None, None, None, 60.0, 150.0]),
            **self._among_others(known),
            **where,
        )
        specs, placements = self.fleet.dispatcher.locate(
            [one], online_within=LEASE, wait_for_host=True
        )
        placed = self.fleet.dispatcher.submit(specs, placements=placements, halts=HALTS)
        return one, placed

    def _among_others(self, known: list[str]) -> dict[str, Any]:
        """Return what few jobs ask, of those that come after others or end with them."""
        if self.random.random() < 0.6:
            return {}
        return {
            "after_any": tuple(self.random.sample(known, min(len(known), 1))),
            "when": self.random.choice(["success", "failure", "always"]),
            "is_lenient": self.random.random() < 0.3,
            "halts": self.random.choice([(), ("soon",), ("now", "soon")]),
        }

    def rerun(self):
        ids, force = sorted(self.states), self.random.random() < 0.5
        some = self.random.sample(ids, min(len(ids), 4))
        try:
            return some, self.fleet.dispatcher.rerun(sorted(some), force=force)
        except Conflict as error:
            return some, error

    def cancel(self):
        id = self.job()
        return id, id in self.states and self.fleet.cancel(id)

    def retry(self):
        id, force = self.job(), self.random.random() < 0.5
        return id, force, id in self.states and self.fleet.retry(id, force=force)

    def move(self):
        id, where = self.job(), self.random.choice([{}, {"host": "any"}, *PLACES[3:10]])
        try:
            self.fleet.dispatcher.move(id, priority=self.random.randint(1, 10), **where)
        except (Conflict, NoSuchJob, NoSuchHost, Unplaceable) as error:
            return id, where, error
        return id, where

    def forget(self):
        id = self.job()
        return id, self.fleet.store.jobs.forget([id])

    def resolve(self):
        id, state = self.job(), self.random.choice([SUCCEEDED, FAILED])
        return id, id in self.states and self.fleet.resolve(id, state)

    def drain(self):
        name, undo = self.host().name, self.random.random() < 0.8
        changed = self.fleet.store.hosts.drain(name, undo=undo)
        assert changed is ((name in self.drained) is undo)
        (self.drained.discard if undo else self.drained.add)(name)
        return name, undo

    def pause(self):
        name, seconds = self.random.choice(["pi4", "mini", ""]), self.random.choice([None, 10, 50])
        assert self.fleet.store.pauses.pause(host=name, seconds=seconds)[0] == "paused"
        self.paused[name] = float("inf") if seconds is None else self.fleet.now() + seconds
        return name, seconds

    def resume(self):
        name = self.random.choice(["pi4", "mini", ""])
        [word, *_] = self.fleet.store.pauses.resume(host=name)
        assert word == "resumed" or self.paused.get(name, 0.0) < self.fleet.now() + NEAR
        self.paused.pop(name, None)
        return name, word

    def pause_job(self):
        id = self.job()
        pauses = self.fleet.store.pauses
        [word, *_] = (pauses.pause if self.random.random() < 0.6 else pauses.resume)(id=id)
        if id in self.states and word != "unpaused":
            assert (word == "unfit") is (self.states[id] not in HELD)
        return id, word

    def label(self):
        name, change = self.host().name, self.random.choice(["+heavy", "-heavy", "=heavy"])
        return name, self.fleet.store.hosts.label(name, [change])

    def dismiss(self):
        host, heir = self.random.sample(self.hosts, 2)
        heirs = self.random.choice(["", heir.name])
        try:
            self.fleet.store.hosts.dismiss(host.name, lease=LEASE, heir=heirs)
        except Conflict as error:
            return host.name, error
        assert not self._running(host.name)
        assert heirs or not self._waiting_for(host.name)
        self.drained.discard(host.name)
        self.paused.pop(host.name, None)
        host.register()
        self._publish(host, self.facts[host.name])
        return host.name, heirs

    def welcome_back(self):
        """Register all hosts: a sweep forgets one, and what was said of it, after 90 days."""
        for host in self.hosts:
            if not self.fleet.store.connection.exists(self.fleet.key("host", host.name)):
                self.drained.discard(host.name)
                self.paused.pop(host.name, None)
            host.register()

    # What workers do.

    def claim(self):
        host, most = self.host(), self.random.choice([0, 0, 0, 4])
        queues = self.queues[host.name]
        running = self._running(host.name)
        signed = [self.fleet.store.jobs.signed_spec(id) for id in running]
        offered = queues.offer(signed)
        heads = self._heads(offered)
        answer = self._ask(host, offered, most)
        word = answer if isinstance(answer, str) else "claimed"
        self.answers[word] += 1
        self._check_barred(host.name, word)
        if word == "queues":
            queues.learn(self.fleet.store.leases.registry(host.name))
            assert self._ask(host, [], most) != "queues"
            return self.claim()
        if word == "full":
            assert most
            assert self._held_count() >= most
        elif word == "none":
            assert not [head.id for head in self._eligible(heads)]
        if not isinstance(answer, Claim):
            return host.name, word
        self._check_claim(host, answer.token.id, heads, most)
        self.tokens.append(answer.token)
        if self.random.random() < 0.7:
            return answer.token, host.name, host.beat(answer.token)
        return answer.token, host.name

    def beat(self):
        tokens = dict.fromkeys(self.token() for _ in range(self.random.randint(1, 4)))
        phase = self.random.choice(["claimed", "started"])
        return list(tokens), phase, self.host().beat(*tokens, phase=phase)

    def report(self):
        host = self.host()
        attempts = [(self.token(), self.random.choice(["", "on battery"])) for _ in range(2)]
        wishes = self.fleet.store.pauses.report(host.who, attempts)
        assert wishes is not None
        ends = [self.paused.get(name, 0.0) for name in (host.name, "")]
        if all(abs(end - self.fleet.now()) > NEAR for end in ends):
            assert bool(wishes.host) is any(end > self.fleet.now() for end in ends)
        return host.name, wishes

    def publish(self):
        host, facts = self.host(), self.random.choice(FACTS)
        self._publish(host, facts)
        return host.name, facts

    def finish(self):
        token, state = self.token(), self.random.choice(sorted(ENDS))
        return token, state, self.hosts[0].finish(token, state)

    def expand(self):
        token, children = self.token(), [f"{self.submitted + i:012}" for i in (1, 2)]
        if self.states.get(token.id) not in HELD:
            return token
        self.submitted += 2
        self.fleet.submit_all([spec(id=id) for id in children])
        answer = self.fleet.store.leases.expand(token, children, template=TEMPLATE)
        return token, children, answer

    def release(self):
        token = self.token()
        return token, self.hosts[0].release(token)

    def lose(self):
        token = self.token()
        return token, self.hosts[0].lose(token)

    def park(self):
        return self.host().park(self.token(), duration=100)

    def reboot(self):
        i = self.random.randrange(len(self.hosts))
        self.hosts[i] = self.hosts[i].rebooted(secrets.token_hex(4))
        return self.hosts[i].register()

    # What time does.

    def tick(self):
        duration = self.random.choice([1, 20, 40, 70, 200])
        self.fleet.clock.advance(duration)
        return duration, self._tick()

    def prune(self):
        self.fleet.clock.advance(2 * KEEP)
        return self._tick()

    def _tick(self):
        records = {r.id: r for r in self.fleet.store.jobs.fetch_many(list(self.states))}
        done = self.fleet.tick()
        for word, id in done:
            if word == "unclaimed":
                assert records[id].attempt == 0
                assert (records[id].expires_at or 1e12) <= self.fleet.now()
                assert self.fleet.record(id).reason == "expired"
            if word == "widened":
                assert self.fleet.record(id).overflow_at is None
        return done

    # What is seen of it.

    def serve(self) -> None:
        """Have every host run what it can, as a worker does without any trouble."""
        for host in self.hosts:
            queues = self.queues[host.name]
            queues.learn(self.fleet.store.leases.registry(host.name))
            claim = self._ask(host, queues.offer([]), 0)
            if isinstance(claim, Claim):
                host.beat(claim.token)
                host.finish(claim.token)

    def is_served(self, queue: str) -> bool:
        """Whether a host takes jobs from a queue."""
        return any(queues.serves(queue) for queues in self.queues.values())

    def _ask(self, host: FleetHost, offered: list[tuple[str, str]], most: int) -> Claim | str:
        return self.fleet.store.leases.claim(
            host.who,
            [queue for queue, _ in offered],
            wants=[wants for _, wants in offered],
            uid=secrets.token_hex(6),
            lease=LEASE,
            registry=self.queues[host.name].version,
            max_running=most,
            patience=PATIENCE,
        )

    def _publish(self, host: FleetHost, facts: dict[str, Any]) -> None:
        assert self.fleet.store.hosts.publish(host.who, facts)
        self.facts[host.name] = facts
        self.queues[host.name].describe(facts)

    def _heads(self, offered: list[tuple[str, str]]) -> list[Head]:
        now, heads = self.fleet.now(), []
        for queue, wants in offered:
            key = self.fleet.key("queue", queue)
            for id, place in self.fleet.store.connection.zrange(key, 0, 0, withscores=True):
                since = float(
                    self.fleet.store.connection.hget(self.fleet.key("job", id.decode()), "queued")
                )
                heads.append(Head(id.decode(), place, now - since, wants))
        return heads

    def _eligible(self, heads: list[Head]) -> list[Head]:
        free = [head for head in heads if not head.is_held()]
        return [head for head in free if not any(other.holds_back(head) for other in heads)]

    def _check_claim(self, host: FleetHost, id: str, heads: list[Head], most: int) -> None:
        connection = self.fleet.store.connection
        if all(abs(head.age - PATIENCE) > NEAR for head in heads):
            eligible = self._eligible(heads)
            assert id in [h.id for h in eligible if h.place == min(e.place for e in eligible)]
        assert most == 0 or self._held_count() <= most
        leader = connection.hget(self.fleet.key("job", id), "with")
        if leader:
            where = connection.hget(self.fleet.key("job", leader.decode()), "host")
            heirs = connection.hget(self.fleet.key("host", host.name), "was") or b""
            names = [host.name, *heirs.decode().split(",")]
            assert where.decode() in names, f"{id} beside {leader} on {where}"

    def _check_barred(self, name: str, word: str) -> None:
        ends = [self.paused.get(who, 0.0) for who in (name, "")]
        if name in self.drained:
            assert word == "barred"
        elif all(abs(end - self.fleet.now()) > NEAR for end in ends):
            assert (word == "barred") is any(end > self.fleet.now() for end in ends), word

    def _running(self, host: str) -> list[str]:
        found = self.fleet.store.connection.smembers(self.fleet.key("active", host))
        return sorted(id.decode() for id in found)

    def _held_count(self) -> int:
        return sum(
            self.fleet.store.connection.zcard(self.fleet.key("state", state)) for state in HELD
        )

    def _waiting_for(self, host: str) -> list[str]:
        """Return the jobs that no other host may take."""
        records = self.fleet.store.jobs.list(states=[JobState.QUEUED], limit=10_000)
        ends = (f"host.{host}", f",on={host}", f".on={host}")
        return [record.id for record in records if record.queue.endswith(ends)]


WEIGHTS = {
    "submit": 20,
    "claim": 40,
    "beat": 12,
    "report": 3,
    "finish": 15,
    "expand": 2,
    "rerun": 2,
    "release": 3,
    "lose": 4,
    "park": 2,
    "reboot": 1,
    "publish": 2,
    "label": 2,
    "dismiss": 1,
    "drain": 2,
    "pause": 1,
    "resume": 5,
    "pause_job": 3,
    "cancel": 5,
    "move": 6,
    "forget": 2,
    "retry": 5,
    "resolve": 3,
    "tick": 15,
    "prune": 1,
}
