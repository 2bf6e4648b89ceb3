"""A broker out of memory: nothing new starts, everything that runs can go on and end.

On real servers only: fakeredis has no memory limit.
"""

import pytest

from relayq.errors import BrokerFull, BrokerUnavailable
from relayq.model.accounts import AccountPause, Usage
from relayq.model.jobs import JobState
from relayq.model.questions import Question
from relayq.model.sessions import Session
from relayq.store.leases import Further
from tests.redis.agents import CLAUDE, AgentHost, agent_job
from tests.redis.fleet import spec
from tests.redis.recurrences import Recurrences
from tests.redis.scenes import reach

pytestmark = pytest.mark.parametrize("connection", ["redis7", "redis62"], indirect=True)


@pytest.fixture
def fill_memory(connection):
    """Return what makes the broker refuse every write that needs memory."""

    def fill():
        used = int(connection.info("memory")["used_memory"])
        connection.config_set("maxmemory-policy", "noeviction")
        connection.config_set("maxmemory", used // 2)
        with pytest.raises(Exception, match="OOM|out of memory|used memory"):
            connection.set("{probe}", "x")

    yield fill
    connection.config_set("maxmemory", 0)


def test_a_submit_is_refused_with_nothing_stored(fleet, store, fill_memory):
    fleet.submit()
    before = snapshot(store)
    fill_memory()

    with pytest.raises(BrokerUnavailable, match="takes no new work"):
        fleet.dispatcher.submit([spec(), spec()])

    assert snapshot(store) == before


def test_a_first_submit_ever_is_refused_with_nothing_stored(fleet, store, fill_memory):
    fill_memory()

    with pytest.raises(BrokerUnavailable):
        fleet.submit()

    assert snapshot(store) == {}


def test_a_claim_is_refused_and_the_job_stays_queued(fleet, store, fill_memory):
    host = fleet.host()
    id = fleet.submit()
    before = snapshot(store)
    fill_memory()

    with pytest.raises(BrokerUnavailable, match="takes no new work"):
        host.ask()

    assert snapshot(store) == before
    assert fleet.state(id) is JobState.QUEUED


def test_a_checkpoint_is_refused_and_the_last_one_stays(fleet, store, fill_memory):
    token = fleet.host().start(fleet.submit())
    store.checkpoints.keep(token, b"1")
    fill_memory()

    with pytest.raises(BrokerFull):
        store.checkpoints.keep(token, b"2")

    assert store.checkpoints.of(token.id) == b"1"


def test_a_retry_by_a_person_is_refused_with_nothing_changed(fleet, store, fill_memory):
    id = reach(fleet, JobState.FAILED)
    before = snapshot(store)
    fill_memory()

    with pytest.raises(BrokerUnavailable):
        fleet.retry(id)

    assert snapshot(store) == before


def test_a_move_is_refused_with_nothing_changed(fleet, store, fill_memory):
    fleet.host("mini")
    id = fleet.submit()
    before = snapshot(store)
    fill_memory()

    with pytest.raises(BrokerUnavailable):
        fleet.dispatcher.move(id, host="mini", priority=9)

    assert snapshot(store) == before


def test_memory_can_be_freed_by_forgetting(fleet, store, fill_memory):
    id = reach(fleet, JobState.SUCCEEDED)
    fill_memory()

    assert store.jobs.forget([id]) == ["forgotten"]


def test_a_queued_job_costs_little(fleet, store):
    """What the 10,000th costs, not the first: keys, indices and nudges in one figure."""
    fleet.submit(timeout=18_000.0, submitter="ann@mac-mini")
    before = store.connection.info("memory")["used_memory"]

    fleet.submit_all([spec(timeout=18_000.0, submitter="ann@mac-mini") for _ in range(10_000)])

    after = store.connection.info("memory")["used_memory"]
    assert (after - before) / 10_000 <= 1250


def test_a_beat_keeps_the_lease_and_starts_what_was_claimed(fleet, fill_memory):
    host = fleet.host()
    running, claimed = host.start(fleet.submit()), host.claim(fleet.submit())
    fill_memory()
    fleet.clock.advance(50)

    assert host.beat(running, claimed, load='{"load": 1}') == ["ok", "ok"]

    fleet.clock.advance(50)
    assert fleet.tick() == []
    assert fleet.record(claimed.id).phase == "started"


def test_an_idle_host_stays_online(fleet, store, fill_memory):
    host = fleet.host()
    fleet.clock.advance(50)
    fill_memory()

    host.beat(load='{"load": 1}')

    [seen] = store.hosts.list(online_within=30)
    assert seen.is_online


@pytest.mark.parametrize(
    "state",
    [JobState.SUCCEEDED, JobState.FAILED, JobState.NEEDS_HUMAN, JobState.SCHEDULED],
)
def test_a_running_job_can_end(fleet, store, fill_memory, state):
    host = fleet.host()
    token = host.start(fleet.submit())
    child = fleet.submit(after=(token.id,))
    fill_memory()

    assert host.finish(token, state, output=b"x" * 10_000) == state

    assert store.jobs.outcome(token.id)
    settled = {JobState.SUCCEEDED: JobState.QUEUED, JobState.FAILED: JobState.FAILED}
    assert fleet.state(child) is settled.get(state, JobState.WAITING)


def test_a_late_outcome_is_kept(fleet, store, fill_memory):
    host = fleet.host()
    token = fleet.lose(host, fleet.submit())
    fill_memory()

    assert host.finish(token) == "stale"
    assert store.connection.exists(fleet.key("late", token.id))


def test_a_queued_and_a_running_job_can_be_cancelled(fleet, fill_memory):
    running = reach(fleet, JobState.RUNNING)
    queued = fleet.submit()
    fill_memory()

    assert fleet.cancel(queued) == ("cancelled", None)
    assert fleet.cancel(running) == ("asked", "pi4")

    assert fleet.record(running).cancel_at is not None


def test_a_person_can_close_a_job(fleet, fill_memory):
    id = reach(fleet, JobState.NEEDS_HUMAN)
    fill_memory()

    assert fleet.resolve(id, JobState.FAILED, note="enough") == "failed"


def test_an_attempt_can_be_reported_lost_released_and_parked(fleet, fill_memory):
    host = fleet.host()
    lost, released, parked = (host.start(fleet.submit()) for _ in range(3))
    fill_memory()

    assert host.lose(lost) == "queued"
    assert host.release(released) == "queued"
    assert host.park(parked) == "ok"


def test_output_can_be_logged(fleet, store, fill_memory):
    token = fleet.host().start(fleet.submit())
    fill_memory()

    assert store.logs.append(token, 0, b"output") == "ok"


def test_time_goes_on(fleet, fill_memory):
    token = fleet.host().start(fleet.submit())
    due = fleet.submit(due_at=fleet.now() + 30)
    fill_memory()

    assert set(fleet.expire()) == {("expired", token.id), ("due", due)}


def test_a_restarted_worker_can_speak_for_its_jobs(fleet, fill_memory):
    host = fleet.host()
    token = host.start(fleet.submit())
    fill_memory()

    assert host.register() == ("ok", [token])


def test_a_schedules_turn_is_refused_with_nothing_changed(fleet, store, fill_memory):
    recurs = Recurrences(fleet)
    recurs.add("every 1m")
    fleet.clock.advance(61)
    before = recurs.record(), set(store.connection.keys("*"))
    fill_memory()

    with pytest.raises(BrokerUnavailable):
        recurs.turns().take("nightly")

    assert (recurs.record(), set(store.connection.keys("*"))) == before


def test_a_schedule_can_be_paused_and_removed(fleet, store, fill_memory):
    recurs = Recurrences(fleet)
    schedule = recurs.add("every 1m")
    fill_memory()

    assert recurs.pause() == "paused"
    assert recurs.resume(schedule) == "resumed"
    store.schedules.drop("nightly", who="ann@mac")


def snapshot(store):
    """Return everything that Redis holds."""
    return {key: store.connection.dump(key) for key in store.connection.keys("*")}


# Agents' jobs


def test_an_agents_job_that_is_refused_holds_no_account(fleet, store, fill_memory):
    host = AgentHost(fleet)
    agent_job(fleet)
    before = snapshot(store)
    fill_memory()

    with pytest.raises(BrokerUnavailable):
        host.ask()

    assert snapshot(store) == before


def test_an_answer_is_refused_with_nothing_changed(fleet, store, fill_memory):
    id = reach(fleet, JobState.NEEDS_HUMAN)
    before = snapshot(store)
    fill_memory()

    with pytest.raises(BrokerUnavailable):
        fleet.dispatcher.answer(id, "yes")

    assert snapshot(store) == before


def test_an_agent_asks_and_ends_all_the_same(fleet, store, fill_memory):
    host = AgentHost(fleet)
    token = host.start(agent_job(fleet))
    session = Session("s1", "claude", CLAUDE, "pi4", "/tmp", job=token.id, turns=2)
    fill_memory()

    store.sessions.note(session)
    assert store.questions.ask(token, Question("q1", "Which?")) == ("asked", None)
    further = Further(
        queue="needs.kind:run_agent,account=claude/default,on=pi4",
        pause=AccountPause(CLAUDE, seconds=600.0, reason="five_hour"),
        usage=Usage(0.5, 10, 2),
        session=session,
    )
    ended = host.finish(token, JobState.SCHEDULED, delay=600.0, counts="", further=further)

    assert ended == JobState.SCHEDULED
    [account] = store.accounts.list()
    assert (account.reason, account.spent_usd, account.active) == ("five_hour", 0.5, ())
    assert store.sessions.fetch("s1").turns == 2
    assert store.accounts.resume(CLAUDE) is True
    assert store.accounts.pause(CLAUDE, seconds=60) > fleet.now()
