"""Accounts of agents: how many of their jobs run at a time in the fleet, and when none may."""

from __future__ import annotations

import json
import random

import pytest

from relayq.model.accounts import AccountPause, Quota, Usage
from relayq.model.jobs import JobState
from relayq.store.leases import Claim, Further
from tests.redis.agents import AT_ONCE, CLAUDE, CODEX, AgentHost, agent_job
from tests.redis.consistency import problems
from tests.redis.fleet import LEASE
from tests.redis.test_sweep import sweep

SCHEDULED, QUEUED, RUNNING = JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING
SUCCEEDED, NEEDS_HUMAN = JobState.SUCCEEDED, JobState.NEEDS_HUMAN
TO_BOTH = (CLAUDE, CODEX)


def account(fleet, name=CLAUDE):
    [found] = fleet.store.accounts.fetch([name])
    return found


def told(fleet):
    return [(event.what, event.account) for event in fleet.store.events.read()]


# Who takes what


def test_an_agents_job_goes_to_a_host_that_has_the_agent(fleet):
    id = agent_job(fleet)
    without, has = AgentHost(fleet, "mini", ()), AgentHost(fleet, "pi4")

    assert without.ask() == "none"
    claim = has.ask()

    assert isinstance(claim, Claim)
    assert (claim.token.id, claim.account) == (id, CLAUDE)
    assert claim.queue == "needs.kind:run_agent,account=claude/default"
    assert fleet.record(id).account == CLAUDE
    assert account(fleet).active == (id,)


def test_a_job_without_an_agent_has_no_account(fleet):
    id = fleet.submit()

    claim = AgentHost(fleet).ask()

    assert isinstance(claim, Claim)
    assert (claim.account, claim.queue, claim.answer, claim.outcome) == ("", "any", None, None)
    assert fleet.record(id).account is None
    assert fleet.store.accounts.list() == []


# How many at a time


def test_so_many_jobs_of_an_account_run_at_a_time_in_the_whole_fleet(fleet):
    ids = [agent_job(fleet) for _ in range(4)]
    quotas = {CLAUDE: Quota(limit=2, stagger=0.0)}
    pi4, mini = AgentHost(fleet, "pi4", quotas=quotas), AgentHost(fleet, "mini", quotas=quotas)

    first, second = pi4.start(ids[0]), mini.start(ids[1])
    assert pi4.ask() == mini.ask() == "none"
    pi4.finish(first)

    assert mini.got() == (ids[2], CLAUDE)
    assert pi4.ask() == "none"
    assert account(fleet).active == tuple(sorted([second.id, ids[2]]))
    assert account(fleet).queued == 1


def test_one_that_leaves_a_full_account_wakes_the_hosts(fleet, store):
    ids = [agent_job(fleet) for _ in range(2)]
    host = AgentHost(fleet, quotas={CLAUDE: Quota(limit=1, stagger=0.0)})
    token = host.start(ids[0])
    host.ask()
    store.connection.delete(fleet.key("control", "pi4"))

    host.finish(token)

    rows = store.connection.lrange(fleet.key("control", "pi4"), 0, -1)
    assert [json.loads(row)["op"] for row in rows] == ["wake"]


def test_other_jobs_are_not_held_up_by_a_full_account(fleet):
    host = AgentHost(fleet, quotas={CLAUDE: Quota(limit=1, stagger=0.0)})
    host.start(agent_job(fleet))
    agent_job(fleet, priority=10)
    plain = fleet.submit(priority=1)

    assert host.got() == (plain, "")


@pytest.mark.parametrize("way", ["finish", "release", "lose", "expire", "cancel"])
def test_an_account_is_let_go_whatever_ends_the_attempt(fleet, way):
    host = AgentHost(fleet)
    token = host.start(agent_job(fleet, on_lost="fail"))
    if way == "finish":
        host.finish(token, JobState.FAILED)
    elif way == "release":
        host.release(token)
    elif way == "lose":
        host.lose(token)
    elif way == "expire":
        fleet.expire()
        assert account(fleet).active == (token.id,)
        fleet.judge()
    else:
        fleet.cancel(token.id)
        host.finish(token, JobState.CANCELLED)

    assert account(fleet).active == ()


def test_starts_on_an_account_are_spread(fleet):
    quotas = {CLAUDE: Quota(limit=9, stagger=2.0)}
    hosts = [AgentHost(fleet, name, quotas=quotas) for name in ("pi4", "mini")]
    for _ in range(3):
        agent_job(fleet)

    assert hosts[0].got()
    assert hosts[1].ask() == "none"
    fleet.clock.advance(1.9)
    assert hosts[1].ask() == "none"
    fleet.clock.advance(2.2)

    assert hosts[1].got()
    assert hosts[0].ask() == "none"


def test_a_clock_that_was_set_back_far_closes_no_account(fleet):
    host = AgentHost(fleet, quotas={CLAUDE: Quota(stagger=2.0)})
    for _ in range(2):
        agent_job(fleet)
    host.start()

    fleet.clock.advance(-86_400)

    assert host.got()


def test_however_the_hosts_ask_the_limit_holds_and_nobody_starves(fleet, store):
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    quotas = {CLAUDE: Quota(limit=3, stagger=0.0), CODEX: Quota(limit=2, stagger=0.0)}
    hosts = [AgentHost(fleet, f"host{i}", ("claude", "codex"), quotas) for i in range(4)]
    ids = {agent_job(fleet, chance.choice(TO_BOTH)) for _ in range(25)}
    running, done = {}, set()
    for _ in range(400):
        host = chance.choice(hosts)
        if chance.random() < 0.6:
            claim = host.ask()
            if isinstance(claim, Claim):
                running[claim.token] = (host, claim.account)
        elif running:
            token = chance.choice(sorted(running, key=str))
            owner, _ = running.pop(token)
            way = chance.choice(["finish", "finish", "release", "lose"])
            getattr(owner, way)(token)
            done |= {token.id} if fleet.state(token.id).is_final else set()
        for name, quota in quotas.items():
            assert sum(used == name for _, used in running.values()) <= quota.limit
        assert len(account(fleet).active) == sum(a == CLAUDE for _, a in running.values())
        if done == ids:
            break
    assert done | {token.id for token in running} == ids
    assert not problems(store)


# Limits


def test_after_a_usage_limit_nothing_starts_before_the_reset(fleet):
    hosts = [AgentHost(fleet, f"host{i}", quotas=AT_ONCE) for i in range(3)]
    ids = [agent_job(fleet) for _ in range(8)]
    tokens = [host.start() for host in hosts]
    chance = random.Random(7)

    assert hosts[0].limited(tokens[0], seconds=3600) == SCHEDULED
    started = 0
    for _ in range(60):
        fleet.clock.advance(59.9)
        started += isinstance(chance.choice(hosts).ask(), Claim)
    assert started == 0
    fleet.clock.advance(60)
    fleet.tick()

    claims = [host.ask() for host in hosts]
    assert sum(isinstance(claim, Claim) for claim in claims) == 1
    assert len(fleet.store.accounts.list()) == 1
    assert set(fleet.states(*ids)) == {QUEUED, RUNNING}


def test_the_pause_and_its_end_are_told(fleet):
    host = AgentHost(fleet)
    host.limited(host.start(agent_job(fleet)), seconds=3600)

    found = account(fleet)

    assert found.until == pytest.approx(fleet.now() + 3600, abs=5)
    assert (found.reason, found.probing) == ("five_hour", False)
    assert told(fleet)[-2:] == [("limited", CLAUDE), ("retrying", None)]
    fleet.clock.advance(3601)
    assert (account(fleet).until, account(fleet).probing) == (None, True)


def test_after_a_pause_one_job_tries_the_account_alone(fleet):
    host = AgentHost(fleet)
    for _ in range(4):
        agent_job(fleet)
    host.limited(host.start(), seconds=600)
    fleet.clock.advance(601)

    prober = host.start()
    assert host.ask() == "none"
    host.finish(prober)

    assert account(fleet).probing is False
    assert host.got()
    assert host.got()


def test_a_probe_that_runs_for_a_minute_has_shown_that_it_works(fleet):
    host = AgentHost(fleet)
    for _ in range(4):
        agent_job(fleet)
    host.limited(host.start(), seconds=600)
    fleet.clock.advance(601)
    prober = host.start()
    fleet.clock.advance(59)
    host.beat(prober)
    assert host.ask() == "none"

    fleet.clock.advance(2)

    assert host.got()
    assert account(fleet).probing is False
    assert host.got()


def test_a_probe_that_fails_is_followed_by_another_one_alone(fleet):
    host = AgentHost(fleet)
    for _ in range(4):
        agent_job(fleet)
    host.limited(host.start(), seconds=600)
    fleet.clock.advance(601)

    host.finish(host.start(), JobState.FAILED)

    assert host.got()
    assert host.ask() == "none"


def test_jobs_that_outlive_a_pause_do_not_bar_the_probe(fleet):
    host = AgentHost(fleet)
    for _ in range(4):
        agent_job(fleet)
    long = host.start()
    host.limited(host.start(), seconds=600)
    for _ in range(11):
        fleet.clock.advance(55)
        host.beat(long)

    assert host.got()
    assert host.ask() == "none"


def test_of_two_limits_the_longer_one_counts(fleet):
    first = fleet.store.accounts.pause(CLAUDE, seconds=3600, reason="seven_day")

    second = fleet.store.accounts.pause(CLAUDE, seconds=60, reason="five_hour")

    assert first == second == pytest.approx(fleet.now() + 3600, abs=5)
    assert account(fleet).reason == "seven_day"
    later = fleet.store.accounts.pause(CLAUDE, until=fleet.now() + 7200)
    assert later == pytest.approx(fleet.now() + 7200, abs=5)


def test_a_pause_that_is_over_already_is_none(fleet):
    fleet.store.accounts.pause(CLAUDE, until=fleet.now() - 5)

    assert account(fleet).probing is False
    assert AgentHost(fleet).ask() == "none"
    agent_job(fleet)
    assert account(fleet).until is None
    assert AgentHost(fleet, "mini").got()


def test_a_person_reopens_an_account(fleet, store):
    host = AgentHost(fleet)
    id = agent_job(fleet)
    fleet.store.accounts.pause(CLAUDE, seconds=3600, reason="by hand", who="moth@mac")
    assert host.ask() == "none"
    store.connection.delete(fleet.key("control", "pi4"))

    assert fleet.store.accounts.resume(CLAUDE, who="moth@mac") is True
    assert store.connection.llen(fleet.key("control", "pi4")) == 1

    assert host.got() == (id, CLAUDE)
    assert fleet.store.accounts.resume(CLAUDE) is False
    assert ("reopened", CLAUDE) in told(fleet)


def test_after_a_person_reopened_it_an_account_is_as_before(fleet):
    host = AgentHost(fleet)
    for _ in range(3):
        agent_job(fleet)
    fleet.store.accounts.pause(CLAUDE, seconds=3600)

    fleet.store.accounts.resume(CLAUDE)

    assert host.got()
    assert host.got()


def test_an_account_whose_pause_is_over_was_open_already(fleet):
    fleet.store.accounts.pause(CLAUDE, seconds=60)
    fleet.clock.advance(61)

    assert fleet.store.accounts.resume(CLAUDE) is False


def test_a_pause_longer_than_an_account_is_remembered_stays(fleet, store):
    fleet.store.accounts.pause(CLAUDE, seconds=200 * 86_400)
    AgentHost(fleet, quotas=AT_ONCE)

    assert store.connection.ttl(fleet.key("account", CLAUDE)) > 200 * 86_400


def test_an_account_of_which_nobody_hears_is_forgotten(fleet):
    fleet.store.accounts.pause(CLAUDE, seconds=60)
    fleet.clock.advance(91 * 86_400)

    fleet.store.accounts.pause(CODEX, seconds=60)

    assert [one.name for one in fleet.store.accounts.list()] == [CODEX]


def test_a_limit_that_a_stale_attempt_met_counts_all_the_same(fleet):
    host = AgentHost(fleet)
    token = fleet.lose(host, agent_job(fleet))

    assert host.limited(token) == "stale"

    assert account(fleet).until is not None
    assert host.ask() == "none"


def test_a_repeated_end_changes_nothing_more(fleet):
    host = AgentHost(fleet)
    token = host.start(agent_job(fleet))
    host.limited(token, seconds=600)
    fleet.store.accounts.resume(CLAUDE)

    assert host.limited(token, seconds=600) == "already"

    assert account(fleet).until is None


# A day's budget


def spend(host, token, dollars):
    usage = Usage(dollars, 1000, 200)
    return host.finish(token, further=Further(usage=usage))


def test_an_account_that_spent_its_days_budget_rests_until_midnight(fleet):
    host = AgentHost(fleet, quotas={CLAUDE: Quota(budget_usd=5.0, stagger=0.0)})
    for _ in range(3):
        agent_job(fleet)
    spend(host, host.start(), 4.999999)
    spend(host, host.start(), 0.000001)

    assert host.ask() == "none"
    found = account(fleet)
    assert (found.spent_usd, found.budget_usd, found.tokens) == (5.0, 5.0, 2400)
    fleet.clock.advance(86_400 - fleet.now() % 86_400 + 1)

    assert account(fleet).spent_usd == 0
    assert host.got()


def test_what_an_attempt_used_is_in_its_record_and_in_the_stats(fleet):
    host = AgentHost(fleet)
    id = agent_job(fleet)
    spent = Further(usage=Usage(0.25, 1000, 200))
    token = host.start(id)
    host.finish(token, SCHEDULED, delay=1.0, counts="failures", further=spent)
    fleet.clock.advance(2)
    fleet.tick()
    host.finish(host.start(id), further=spent)

    record = fleet.record(id)
    assert (record.cost_usd, record.tokens_in, record.tokens_out) == (0.5, 2000, 400)
    [(key, tally)] = fleet.store.stats.by_day(2, now=fleet.now()).items()
    assert key == ("pi4", "run_agent claude")
    assert (tally.cost_usd, tally.tokens_in, tally.tokens_out) == (0.5, 2000, 400)
    assert (tally.succeeded, tally.retried) == (1, 1)


def test_an_unknown_cost_is_not_a_cost_of_nothing(fleet):
    host = AgentHost(fleet, agents=("codex",))
    id = agent_job(fleet, CODEX)
    host.finish(host.start(id), further=Further(usage=Usage(None, 7, 1)))

    assert (fleet.record(id).cost_usd, fleet.record(id).tokens_in) == (None, 7)


def test_a_repeat_counts_nothing_twice(fleet):
    host = AgentHost(fleet)
    id = agent_job(fleet)
    token = host.start(id)

    spend(host, token, 1.0)
    assert spend(host, token, 1.0) == "already"

    assert fleet.record(id).cost_usd == account(fleet).spent_usd == 1.0


# Damage


def test_the_sweep_lists_the_jobs_of_an_account_again(fleet, store):
    token = AgentHost(fleet).start(agent_job(fleet))
    store.connection.delete(fleet.key("account_active", CLAUDE))

    assert ("entered", token.id) in sweep(store)

    assert account(fleet).active == (token.id,)


def test_the_sweep_removes_what_uses_no_account(fleet, store):
    host = AgentHost(fleet)
    token = host.start(agent_job(fleet))
    host.finish(token)
    store.connection.sadd(fleet.key("account_active", CLAUDE), token.id, "nosuchjob000")

    assert sorted(sweep(store)) == sorted([("removed", token.id), ("removed", "nosuchjob000")])


def test_a_worker_that_dies_between_claim_and_start_holds_no_account(fleet):
    host = AgentHost(fleet, quotas={CLAUDE: Quota(limit=1, stagger=0.0)})
    ids = [agent_job(fleet) for _ in range(2)]
    host.claim(ids[0])

    fleet.clock.advance(LEASE + 1)
    fleet.tick()

    assert fleet.state(ids[0]) is QUEUED
    assert host.got() == (ids[0], CLAUDE)


def test_a_pause_has_an_end_or_a_length(fleet):
    with pytest.raises(ValueError, match="an end or a length"):
        fleet.store.accounts.pause(CLAUDE)
    with pytest.raises(ValueError, match="an end or a length"):
        Further(pause=AccountPause(CLAUDE)).as_json(None)
