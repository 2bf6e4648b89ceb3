"""How many jobs of an account run after its API had too many requests."""

from __future__ import annotations

from relayq.model.accounts import Quota
from relayq.model.jobs import JobState
from tests.redis.agents import CLAUDE, AgentHost, agent_job

SUCCEEDED = JobState.SUCCEEDED


def account(fleet):
    [found] = fleet.store.accounts.fetch([CLAUDE])
    return found


def slowed(fleet, host):
    """Have two jobs told that there are too many, and another one find that it goes again."""
    held = [host.ask() for _ in range(2)]
    for claim in held:
        # What runs beside it meets the same limit, and halves nothing again.
        host.limited(claim.token, seconds=60.0, slows=True)
    fleet.clock.advance(61)
    prober = host.ask()
    host.finish(prober.token, SUCCEEDED)


def test_an_api_that_had_too_many_gets_half_as_many_and_one_more_for_each_quiet_time(fleet):
    for _ in range(40):
        agent_job(fleet)
    host = AgentHost(fleet, quotas={CLAUDE: Quota(limit=6, stagger=0.0)})
    slowed(fleet, host)
    counts = []
    for _ in range(5):
        while host.got():
            pass
        found = account(fleet)
        counts.append((len(found.active), found.room))
        fleet.clock.advance(300)

    assert counts == [(3, 3), (4, 4), (5, 5), (6, 6), (6, 6)]
    assert account(fleet).limit == 6


def test_one_job_always_remains(fleet):
    for _ in range(10):
        agent_job(fleet)
    host = AgentHost(fleet, quotas={CLAUDE: Quota(limit=3, stagger=0.0)})
    for _ in range(4):
        claim = host.ask()
        host.limited(claim.token, seconds=60.0, slows=True)
        fleet.clock.advance(61)

    assert account(fleet).room == 1
    assert host.got()
    fleet.store.accounts.resume(CLAUDE)
    assert account(fleet).room == 3
