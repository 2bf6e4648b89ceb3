"""Whatever happens to agents' jobs, their accounts, questions and answers, all of it stays true."""

from __future__ import annotations

import random
from collections import deque
from contextlib import suppress
from typing import Any

import pytest

from relayq.errors import Conflict
from relayq.model.accounts import AccountPause, Quota, Usage
from relayq.model.jobs import JobState, Token
from relayq.model.moves import ENDS, MOVES
from relayq.model.placement import agent_of
from relayq.model.questions import Question
from relayq.store.leases import Claim, Further
from tests.redis.agents import CLAUDE, CODEX, AgentHost
from tests.redis.consistency import problems
from tests.redis.fleet import Fleet, spec
from tests.redis.test_sweep import sweep

STEPS = 250
QUOTAS = {CLAUDE: Quota(limit=2, stagger=3.0), CODEX: Quota(limit=3, stagger=0.0, budget_usd=2.0)}
AGENTS = {"pi4": ("claude",), "mini": ("claude", "codex"), "box": ("codex",)}


class Walk:
    """Random acts of people, workers and time on agents' jobs."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet, self.chance = fleet, random.Random(seed)
        self.hosts = [AgentHost(fleet, name, agents, QUOTAS) for name, agents in AGENTS.items()]
        self.specs: dict[str, Any] = {}
        self.tokens: list[tuple[AgentHost, Token]] = []
        self.story: deque[str] = deque(maxlen=15)

    def step(self) -> None:
        act = self.chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]
        self.story.append(f"{act} {getattr(self, act)()}")

    def states(self) -> dict[str, JobState]:
        return {r.id: r.state for r in self.fleet.store.jobs.fetch_many(self.specs)}

    def job(self) -> str:
        return self.chance.choice(sorted(self.specs)) if self.specs else "nosuchjob000"

    def attempt(self) -> tuple[AgentHost, Token]:
        known = self.tokens[-8:] or [(self.hosts[0], Token("nosuchjob000", 1, "u"))]
        return self.chance.choice(known)

    def submit(self):
        accounts = self.chance.choice([(CLAUDE,), (CODEX,), (CLAUDE, CODEX), ()])
        one = spec(
            id=f"{len(self.specs):012}",
            kind="run_agent",
            accounts=accounts,
            priority=self.chance.randint(1, 10),
            on_lost=self.chance.choice(["retry", "ask", "fail"]),
            host=self.chance.choice([None, None, None, "mini"]),
        )
        self.specs[one.id] = one
        return one.id, accounts, self.fleet.dispatcher.submit([one])

    def claim(self):
        host = self.chance.choice(self.hosts)
        accounts = {one.name: one for one in self.fleet.store.accounts.fetch([CLAUDE, CODEX])}
        claim = host.ask()
        if not isinstance(claim, Claim):
            return claim
        self.tokens.append((host, claim.token))
        one = self.specs[claim.token.id]
        assert (claim.account in one.accounts) if one.accounts else claim.account == ""
        if claim.account:
            before = accounts[claim.account]
            assert before.until is None, f"{claim.account} is paused"
            assert len(before.active) < QUOTAS[claim.account].limit
            assert before.budget_usd is None or before.spent_usd < before.budget_usd
            assert agent_of(claim.account) in AGENTS[host.name]
        if claim.answer is not None:
            reply = self.fleet.signer.check_answer(
                claim.answer,
                id=claim.token.id,
                attempt=claim.token.attempt,
                outcome=claim.outcome,
            )
            assert reply.text == f"to {reply.attempt}"
        if self.chance.random() < 0.8:
            host.beat(claim.token)
        return claim.token, claim.account

    def finish(self):
        host, token = self.attempt()
        state = self.chance.choice(sorted(ENDS))
        one = self.specs.get(token.id)
        stays = one is not None and self.chance.random() < 0.5
        account = self.fleet.record(token.id).account if one else None
        is_limit = account is not None and self.chance.random() < 0.3
        further = Further(
            queue=one.queue_on(host.name) if one and stays else "",
            wide=one.queue if one and stays else "",
            overflow=self.chance.choice([30.0, 300.0]),
            question="Go on?" if state is JobState.NEEDS_HUMAN else "",
            usage=Usage(0.4, 10, 2),
            pause=AccountPause(account, seconds=self.chance.choice([20.0, 200.0]))
            if account and is_limit
            else None,
        )
        options: dict[str, Any] = {"further": further}
        if state is JobState.SCHEDULED:
            options["delay"] = self.chance.choice([0.0, 50.0])
        return token, state, host.finish(token, state, **options)

    def release(self):
        host, token = self.attempt()
        return token, host.release(token)

    def lose(self):
        host, token = self.attempt()
        return token, host.lose(token)

    def beat(self):
        host, token = self.attempt()
        return token, host.beat(token)

    def ask(self):
        _, token = self.attempt()
        question = Question(self.chance.choice(["q1", "q2"]), "Which?", ("a", "b"))
        return token, self.fleet.store.questions.ask(token, question)

    def close(self):
        _, token = self.attempt()
        return token, self.fleet.store.questions.close(token)

    def answer(self):
        id = self.job()
        if id not in self.specs:
            return None
        attempt = self.fleet.record(id).attempt
        with suppress(Conflict):
            return id, self.fleet.dispatcher.answer(id, f"to {attempt}", force=True)
        return id, "unfit"

    def retry(self):
        id = self.job()
        return id, id in self.specs and self.fleet.retry(id, force=True)

    def cancel(self):
        id = self.job()
        return id, id in self.specs and self.fleet.cancel(id)

    def pause(self):
        account, seconds = self.chance.choice([CLAUDE, CODEX]), self.chance.choice([10, 300])
        return account, self.fleet.store.accounts.pause(account, seconds=seconds)

    def resume(self):
        account = self.chance.choice([CLAUDE, CODEX])
        return account, self.fleet.store.accounts.resume(account)

    def tick(self):
        seconds = self.chance.choice([0.5, 5, 40, 100])
        self.fleet.clock.advance(seconds)
        return seconds, self.fleet.tick()


WEIGHTS = {
    "submit": 14,
    "claim": 30,
    "finish": 18,
    "release": 3,
    "lose": 4,
    "beat": 6,
    "ask": 6,
    "close": 2,
    "answer": 8,
    "retry": 3,
    "cancel": 4,
    "pause": 2,
    "resume": 1,
    "tick": 16,
}


def test_whatever_happens_to_agents_jobs_the_rules_hold(fleet, store):
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    walk = Walk(fleet, seed)
    before = walk.states()
    for step in range(STEPS):
        walk.step()
        after = walk.states()
        wrong = [
            f"{id}: {before.get(id)} -> {state}"
            for id, state in after.items()
            if state != before.get(id) and state not in MOVES[before.get(id)]
        ]
        if step % 10 == 0 or step == STEPS - 1:
            wrong += problems(store)
        assert not wrong, f"seed {seed}, step {step}: {wrong} after\n" + "\n".join(walk.story)
        before = after


@pytest.mark.parametrize("index", ["account_active", "asking"])
def test_what_is_missing_anywhere_is_entered_again(fleet, store, index):
    walk = Walk(fleet, random.getrandbits(32))
    for _ in range(STEPS // 2):
        walk.step()
    for key in store.connection.keys(f"*{index}*"):
        store.connection.delete(key)

    sweep(store)

    assert not problems(store)
