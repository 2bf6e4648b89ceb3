"""MOVES is the whole truth: every script, in every state, makes its moves and no others."""

import random
from contextlib import suppress

import pytest

from relayq.dispatch import TEMPLATE
from relayq.errors import Conflict, NoSuchJob
from relayq.model.jobs import FINAL, JobState, Token
from relayq.model.moves import ENDS, MOVES
from tests.redis.consistency import problems
from tests.redis.fleet import Fleet, spec
from tests.redis.scenes import reach
from tests.redis.walk import Walk

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

    def expand(self):
        [child] = self.fleet.submit_all([spec(host="elsewhere")])
        self.fleet.store.leases.expand(self.token, [child], template=TEMPLATE)

    def rerun(self):
        with suppress(Conflict):
            self.fleet.dispatcher.rerun([self.id], force=True)

    def stop(self):
        # It is in no workflow's run.
        with suppress(NoSuchJob):
            self.fleet.store.flows.cancel("")

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
    (RUNNING, "expand"): WAITING,
    (RUNNING, "lose"): NEEDS_HUMAN,
    **{(RUNNING, name): state for name, state in FINISHES.items()},
    (LOST, "beat"): RUNNING,
    (LOST, "park"): RUNNING,
    (LOST, "tick"): NEEDS_HUMAN,
    (LOST, "release"): QUEUED,
    (LOST, "expand"): WAITING,
    (LOST, "lose"): NEEDS_HUMAN,
    **{(LOST, name): state for name, state in FINISHES.items()},
    (NEEDS_HUMAN, "retry"): QUEUED,
    (NEEDS_HUMAN, "cancel"): CANCELLED,
    (NEEDS_HUMAN, "resolve_succeeded"): SUCCEEDED,
    (NEEDS_HUMAN, "resolve_failed"): FAILED,
    (SUCCEEDED, "retry"): QUEUED,
    (FAILED, "retry"): QUEUED,
    (FAILED, "rerun"): QUEUED,
    (CANCELLED, "retry"): QUEUED,
    (CANCELLED, "rerun"): QUEUED,
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
