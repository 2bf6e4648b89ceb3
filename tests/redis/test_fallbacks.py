"""Where an agent's job goes on: with another agent, or where its session is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relayq.dispatch import TEMPLATE
from relayq.model.accounts import Quota, Usage
from relayq.model.jobs import JobState
from relayq.store.leases import Further
from tests.redis.agents import AT_ONCE, CLAUDE, CODEX, AgentHost, agent_job
from tests.redis.fleet import spec

SCHEDULED, NEEDS_HUMAN = JobState.SCHEDULED, JobState.NEEDS_HUMAN
TO_BOTH = (CLAUDE, CODEX)


# Another agent


def test_a_job_falls_back_to_the_next_agent_while_the_first_one_is_paused(fleet):
    both = AgentHost(fleet, "pi4", ("claude", "codex"))
    id = agent_job(fleet, *TO_BOTH)
    fleet.store.accounts.pause(CLAUDE, seconds=3600)

    token = both.claim(id)
    assert fleet.record(id).account == CODEX
    both.release(token)
    fleet.clock.advance(3601)

    assert both.got() == (id, CLAUDE)


def test_a_job_that_met_the_limit_goes_on_with_the_next_agent_at_once(fleet):
    both = AgentHost(fleet, "pi4", ("claude", "codex"))
    id = agent_job(fleet, *TO_BOTH)

    both.limited(both.start(id), delay=0.0)
    fleet.tick()

    assert both.got() == (id, CODEX)
    assert fleet.store.accounts.fetch([CLAUDE])[0].active == ()


def test_a_budget_that_is_spent_sends_jobs_to_the_next_agent(fleet):
    quotas = {**AT_ONCE, CLAUDE: Quota(budget_usd=1.0, stagger=0.0)}
    both = AgentHost(fleet, "pi4", ("claude", "codex"), quotas)
    spent = Further(usage=Usage(1.0, 1000, 200))
    both.finish(both.start(agent_job(fleet)), further=spent)

    id = agent_job(fleet, *TO_BOTH)

    assert both.got() == (id, CODEX)


def test_an_account_that_is_only_busy_is_waited_for(fleet):
    quotas = {**AT_ONCE, CLAUDE: Quota(limit=1, stagger=0.0)}
    both = AgentHost(fleet, "pi4", ("claude", "codex"), quotas)
    codex = AgentHost(fleet, "mini", ("codex",), quotas)
    both.start(agent_job(fleet))
    agent_job(fleet, *TO_BOTH)
    fleet.clock.advance(30)

    assert both.ask() == "none"
    fleet.clock.advance(600)
    assert codex.ask() == "none"


def test_where_nobody_uses_the_first_agent_another_host_takes_over_after_a_while(fleet):
    codex = AgentHost(fleet, "mini", ("codex",))
    id = agent_job(fleet, *TO_BOTH)

    assert codex.ask() == "none"
    fleet.clock.advance(59)
    assert codex.ask() == "none"
    fleet.clock.advance(2)

    assert codex.got() == (id, CODEX)


def test_what_is_known_of_an_account_holds_for_all_its_queues(fleet):
    codex = AgentHost(fleet, "mini", ("codex", "x"))
    agent_job(fleet, *TO_BOTH, priority=1)
    urgent = agent_job(fleet, *TO_BOTH, priority=10, needs=("agent:x",))
    fleet.clock.advance(61)

    assert codex.got() == (urgent, CODEX)


def test_the_wait_for_the_first_agent_begins_anew_when_the_job_is_due_again(fleet):
    claude, codex = AgentHost(fleet), AgentHost(fleet, "mini", ("codex",))
    id = agent_job(fleet, *TO_BOTH)
    claude.finish(claude.start(id), SCHEDULED, delay=3600.0)
    fleet.clock.advance(3601)
    fleet.tick()

    assert codex.ask() == "none"

    assert claude.got() == (id, CLAUDE)


def test_all_agents_paused_means_waiting(fleet):
    both = AgentHost(fleet, "pi4", ("claude", "codex"))
    id = agent_job(fleet, *TO_BOTH)
    fleet.store.accounts.pause(CLAUDE, seconds=3600)
    fleet.store.accounts.pause(CODEX, seconds=600)

    assert both.ask() == "none"
    fleet.clock.advance(601)

    assert both.got() == (id, CODEX)


def test_a_job_can_go_on_without_one_of_its_accounts(fleet):
    both = AgentHost(fleet, "pi4", ("claude", "codex"))
    one = spec(kind="run_agent", accounts=TO_BOTH)
    fleet.dispatcher.submit([one])
    token = both.start(one.id)

    both.finish(
        token, SCHEDULED, delay=0.0, further=Further(queue=one.queue_without(CLAUDE)), counts=""
    )
    fleet.tick()

    assert fleet.record(one.id).queue == "needs.kind:run_agent,account=codex/default"
    assert both.got() == (one.id, CODEX)


# Where its session is


def stay(host, token, one, *, seconds=1.0, overflow=21_600.0):
    further = Further(queue=one.queue_on("pi4"), wide=one.queue, overflow=overflow)
    return host.finish(token, SCHEDULED, delay=seconds, counts="", further=further)


def stayed(fleet, *accounts):
    """Return a host, another one, and a job that is due again where it ran."""
    pi4, mini = AgentHost(fleet, "pi4"), AgentHost(fleet, "mini")
    one = spec(kind="run_agent", accounts=accounts or (CLAUDE,))
    fleet.dispatcher.submit([one])
    stay(pi4, pi4.start(one.id), one)
    fleet.clock.advance(2)
    fleet.tick()
    return pi4, mini, one


def test_a_job_goes_on_where_its_session_is(fleet):
    pi4, mini, one = stayed(fleet)

    assert mini.ask() == "none"
    assert fleet.record(one.id).overflow_at == pytest.approx(fleet.now() + 21_600, abs=5)

    assert pi4.got() == (one.id, CLAUDE)


def test_after_long_enough_any_host_goes_on_with_it(fleet):
    _, mini, one = stayed(fleet)

    fleet.clock.advance(21_601)
    assert ("widened", one.id) in fleet.tick()

    assert fleet.record(one.id).queue == one.queue
    assert mini.got() == (one.id, CLAUDE)


def test_a_job_that_waits_for_its_account_only_is_not_taken_from_its_session(fleet):
    pi4, mini, one = stayed(fleet)
    fleet.store.accounts.pause(CLAUDE, seconds=40_000)

    fleet.clock.advance(21_601)
    assert fleet.tick() == []
    fleet.clock.advance(18_400)
    fleet.tick()

    assert mini.ask() == "none"
    assert pi4.got() == (one.id, CLAUDE)


def test_a_job_bound_to_its_host_anyway_never_widens(fleet):
    pi4 = AgentHost(fleet)
    one = spec(kind="run_agent", accounts=(CLAUDE,), host="pi4")
    fleet.dispatcher.submit([one])

    stay(pi4, pi4.start(one.id), one)

    assert fleet.store.connection.hexists(fleet.key("job", one.id), "overflow") is False


def test_a_job_that_was_to_widen_and_is_sent_elsewhere_does_not(fleet):
    pi4, _, one = stayed(fleet)
    further = Further(queue=one.queue)
    pi4.finish(pi4.start(one.id), SCHEDULED, delay=0.0, counts="", further=further)

    fleet.tick()

    record = fleet.record(one.id)
    assert (record.queue, record.overflow_at) == (one.queue, None)


def test_a_job_beside_another_one_stays_there(fleet):
    pi4 = AgentHost(fleet)
    leader = fleet.submit()
    pi4.start(leader)
    one = spec(kind="run_agent", accounts=(CLAUDE,), with_job=leader)
    fleet.dispatcher.submit([one])
    token = pi4.start(one.id)

    pi4.finish(token, SCHEDULED, delay=0.0, counts="", further=Further(queue=one.queue))
    fleet.tick()

    assert fleet.record(one.id).queue == one.queue_on("pi4")
    assert fleet.store.connection.hget(fleet.key("job", one.id), "wide") == one.queue.encode()


def test_a_job_that_lost_its_accounts_uses_none(fleet):
    pi4 = AgentHost(fleet)
    id = agent_job(fleet)
    pi4.finish(pi4.start(id), SCHEDULED, delay=0.0, counts="")
    before = fleet.store.jobs.signed_spec(id)
    one = replace(fleet.signer.check_spec(before, id=id), accounts=())
    signed = fleet.signer.sign_spec(one)
    fleet.store.jobs.move(one, before=before, signed=signed, template=TEMPLATE)
    fleet.tick()

    assert pi4.got() == (id, "")

    assert fleet.record(id).account is None


def test_a_person_who_retries_it_gets_it_where_its_session_is(fleet):
    pi4, mini = AgentHost(fleet, "pi4"), AgentHost(fleet, "mini")
    one = spec(kind="run_agent", accounts=(CLAUDE,))
    fleet.dispatcher.submit([one])
    further = Further(queue=one.queue_on("pi4"), wide=one.queue, overflow=60.0, question="Go on?")
    pi4.finish(pi4.start(one.id), NEEDS_HUMAN, further=further)

    fleet.retry(one.id)
    assert mini.ask() == "none"
    fleet.clock.advance(61)
    fleet.tick()

    assert mini.got() == (one.id, CLAUDE)


def test_a_retry_may_be_due_at_an_instant(fleet):
    host = AgentHost(fleet)
    token = host.start(agent_job(fleet))
    at = fleet.now() + 500

    host.finish(token, SCHEDULED, delay=None, until=at, counts="")

    assert fleet.record(token.id).due_at == pytest.approx(at, abs=0.001)
    assert fleet.record(token.id).failures == 0


@pytest.mark.parametrize("when", [{}, {"delay": 1.0, "until": 2.0}])
def test_a_retry_without_one_instant_is_a_mistake(fleet, store, when):
    token = AgentHost(fleet).start(agent_job(fleet))

    with pytest.raises(ValueError, match="a delay or an instant"):
        store.leases.finish(
            token, SCHEDULED, reason="quota", outcome=b"", template=TEMPLATE, **when
        )
