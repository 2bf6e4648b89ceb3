"""MOVES is the whole truth: every script, in every state, makes its moves and no others."""

import random
import secrets
from collections import deque
from contextlib import suppress

import pytest

from relayq.errors import Conflict, NoSuchJob
from relayq.model.jobs import ENDS, FINAL, MOVES, JobState, Token
from relayq.store.leases import Claim
from tests.redis.consistency import problems
from tests.redis.fleet import KEEP, Fleet, spec
from tests.redis.scenes import reach

WAITING, SCHEDULED, QUEUED = JobState.WAITING, JobState.SCHEDULED, JobState.QUEUED
RUNNING, LOST, NEEDS_HUMAN = JobState.RUNNING, JobState.LOST, JobState.NEEDS_HUMAN
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED

STEPS = 300


class Acts:
    """What anybody may do to one job, on a host that may hold its current attempt."""

    def __init__(self, fleet: Fleet, id: str) -> None:
        self.fleet, self.id, self.host = fleet, id, fleet.host()
        uid = fleet.store.connection.hget(fleet.key("job", id), "uid") or b"none"
        self.token = Token(id, fleet.record(id).attempt, uid.decode())

    def claim(self):
        self.host.ask()

    def beat(self):
        self.host.beat(self.token)

    def park(self):
        self.host.park(self.token)

    def release(self):
        self.host.release(self.token)

    def lose(self):
        self.host.lose(self.token)

    def cancel(self):
        self.fleet.cancel(self.id)

    def retry(self):
        self.fleet.retry(self.id, force=True)

    def move(self):
        with suppress(Conflict):
            self.fleet.dispatcher.move(self.id, host="pi4", priority=9)

    def resolve_succeeded(self):
        self.fleet.resolve(self.id, SUCCEEDED)

    def resolve_failed(self):
        self.fleet.resolve(self.id, FAILED)

    def append(self):
        self.fleet.store.logs.append(self.token, 0, b"x")

    def register(self):
        self.host.register()

    def tick(self):
        self.fleet.clock.advance(10_000)
        self.fleet.tick()

    def submit_again(self):
        self.fleet.dispatcher.submit([self.fleet.record(self.id).spec])


ACTS = [name for name in vars(Acts) if not name.startswith("_")]
FINISHES = {f"finish_{state}": state for state in sorted(ENDS)}

#: (state before, what is done): state after. What isn't here changes nothing. The jobs are
#: on_lost="ask", where that matters; tests/redis/test_verdicts.py has the other policies.
EXPECTED = {
    (WAITING, "cancel"): CANCELLED,
    (SCHEDULED, "cancel"): CANCELLED,
    (SCHEDULED, "tick"): QUEUED,
    (QUEUED, "claim"): RUNNING,
    (QUEUED, "cancel"): CANCELLED,
    (RUNNING, "tick"): LOST,
    (RUNNING, "release"): QUEUED,
    (RUNNING, "lose"): NEEDS_HUMAN,
    **{(RUNNING, name): state for name, state in FINISHES.items()},
    (LOST, "beat"): RUNNING,
    (LOST, "park"): RUNNING,
    (LOST, "tick"): NEEDS_HUMAN,
    (LOST, "release"): QUEUED,
    (LOST, "lose"): NEEDS_HUMAN,
    **{(LOST, name): state for name, state in FINISHES.items()},
    (NEEDS_HUMAN, "retry"): QUEUED,
    (NEEDS_HUMAN, "cancel"): CANCELLED,
    (NEEDS_HUMAN, "resolve_succeeded"): SUCCEEDED,
    (NEEDS_HUMAN, "resolve_failed"): FAILED,
    (SUCCEEDED, "retry"): QUEUED,
    (FAILED, "retry"): QUEUED,
    (CANCELLED, "retry"): QUEUED,
}


@pytest.mark.parametrize("state", list(JobState))
def test_each_script_moves_a_job_as_the_table_says(fleet, state):
    moved = {}
    for act in [*ACTS, *FINISHES]:
        id = reach(fleet, state, on_lost="ask")
        acts = Acts(fleet, id)
        if act in FINISHES:
            acts.host.finish(acts.token, FINISHES[act])
        else:
            getattr(acts, act)()
        moved[act] = fleet.state(id)
        settle_all(fleet)

    wanted = {act: EXPECTED.get((state, act), state) for act in moved}
    assert moved == wanted


def settle_all(fleet):
    """End every job that there is: the next scene must not see it."""
    for record in fleet.store.jobs.list(states=set(JobState) - FINAL):
        fleet.cancel(record.id)
    fleet.clock.advance(2000)
    fleet.tick()
    fleet.clock.advance(2000)
    fleet.tick()


def test_the_table_above_makes_arrows_of_moves_only():
    wrong = [
        f"{act}: {state} -> {to}" for (state, act), to in EXPECTED.items() if to not in MOVES[state]
    ]

    assert not wrong


class Walk:
    """Does random things to a fleet, and watches each job's state."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.hosts = [fleet.host(name) for name in ("pi4", "mini")]
        self.tokens: list[Token] = []
        self.story: deque[str] = deque(maxlen=15)
        self.submitted = 0
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
        said = getattr(self, act)()
        self.story.append(f"{act} {said}")

    def job(self) -> str:
        return self.random.choice(sorted(self.states) or ["nosuchjob000"])

    def token(self) -> Token:
        """Return a token, mostly a recent one, sometimes one that never was."""
        if not self.tokens or self.random.random() < 0.03:
            return Token(self.job(), 1, "another uid")
        recent = self.tokens[-6:] if self.random.random() < 0.7 else self.tokens
        return self.random.choice(recent)

    def submit(self):
        known = sorted(self.states)
        self.submitted += 1
        after = self.random.sample(known, min(len(known), self.random.choice([0, 0, 1, 2])))
        one = spec(
            id=f"{self.submitted:012}",
            host=self.random.choice([None, None, "pi4", "mini"]),
            priority=self.random.randint(1, 10),
            on_lost=self.random.choice(["retry", "ask", "fail"]),
            due_at=self.fleet.now() + 100 if self.random.random() < 0.2 else None,
            after=tuple(after),
            name=self.random.choice([None, "encode"]),
            group=self.random.choice([None, "films"]),
            unique=self.random.choice([None, None, "a", "b"]),
        )
        return one.id, self.fleet.dispatcher.submit([one])

    def claim(self):
        host = self.random.choice(self.hosts)
        claim = host.ask()
        if isinstance(claim, Claim):
            self.tokens.append(claim.token)
            if self.random.random() < 0.7:
                return claim.token, host.beat(claim.token)
        return claim

    def beat(self):
        tokens = dict.fromkeys(self.token() for _ in range(self.random.randint(1, 4)))
        phase = self.random.choice(["claimed", "started"])
        return list(tokens), phase, self.random.choice(self.hosts).beat(*tokens, phase=phase)

    def finish(self):
        token, state = self.token(), self.random.choice(sorted(ENDS))
        return token, state, self.hosts[0].finish(token, state)

    def release(self):
        token = self.token()
        return token, self.hosts[0].release(token)

    def lose(self):
        token = self.token()
        return token, self.hosts[0].lose(token)

    def park(self):
        host = self.random.choice(self.hosts)
        return host.park(self.token(), duration=100)

    def reboot(self):
        i = self.random.randrange(len(self.hosts))
        self.hosts[i] = self.hosts[i].rebooted(secrets.token_hex(4))
        return self.hosts[i].register()

    def cancel(self):
        id = self.job()
        return id, id in self.states and self.fleet.cancel(id)

    def retry(self):
        id, force = self.job(), self.random.random() < 0.5
        return id, force, id in self.states and self.fleet.retry(id, force=force)

    def move(self):
        id, host = self.job(), self.random.choice([None, "any", "pi4", "mini"])
        try:
            self.fleet.dispatcher.move(id, host=host, priority=self.random.randint(1, 10))
        except (Conflict, NoSuchJob) as error:
            return id, error
        return id, host

    def forget(self):
        id = self.job()
        return id, self.fleet.store.jobs.forget([id])

    def resolve(self):
        id, state = self.job(), self.random.choice([SUCCEEDED, FAILED])
        return id, id in self.states and self.fleet.resolve(id, state)

    def tick(self):
        duration = self.random.choice([1, 20, 40, 70, 200])
        self.fleet.clock.advance(duration)
        return duration, self.fleet.tick()

    def prune(self):
        self.fleet.clock.advance(2 * KEEP)
        return self.fleet.tick()


WEIGHTS = {
    "submit": 20,
    "claim": 25,
    "beat": 12,
    "finish": 15,
    "release": 3,
    "lose": 4,
    "park": 2,
    "reboot": 1,
    "cancel": 6,
    "move": 6,
    "forget": 2,
    "retry": 5,
    "resolve": 3,
    "tick": 15,
    "prune": 1,
}


def test_whatever_happens_no_job_makes_a_move_that_is_not_in_moves(fleet, store):
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    walk = Walk(fleet, seed)
    before = walk.look()
    for step in range(STEPS):
        walk.step()

        after = walk.look()
        wrong = [
            f"{id}: {before.get(id)} -> {state}"
            for id, state in after.items()
            if state != before.get(id) and state not in MOVES[before.get(id)]
        ]
        gone = {id: state for id, state in before.items() if id not in after}
        wrong += [f"{id}: {state} -> gone" for id, state in gone.items() if state not in FINAL]
        if step % 10 == 0 or step == STEPS - 1:
            wrong += problems(store)
        assert not wrong, f"seed {seed}, step {step}: {wrong} after\n" + "\n".join(walk.story)
        before = after
