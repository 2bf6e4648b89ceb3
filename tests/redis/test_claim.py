"""claim: who gets which job, and in which order."""

import threading
from dataclasses import replace

import pytest

from relayq.model.jobs import JobState, Token
from relayq.store.leases import Claim, Registration
from tests.redis.fleet import LEASE, FleetHost, spec


def taken(host: FleetHost, *queues: str) -> list[str]:
    """Claim until there is nothing left; return the ids in that order."""
    ids = []
    while isinstance(claim := host.ask(*queues), Claim):
        ids.append(claim.token.id)
    return ids


def test_a_claim_answers_token_spec_and_followers(fleet):
    one = spec()
    fleet.dispatcher.submit([one], replies=["reply-1"])

    claim = fleet.host().ask()

    assert isinstance(claim, Claim)
    assert (claim.token.id, claim.token.attempt) == (one.id, 1)
    assert fleet.signer.check_spec(claim.signed, id=one.id) == one
    assert claim.failures == 0
    assert claim.replies == ("reply-1",)


def test_a_claimed_job_runs_on_that_host_in_the_phase_claimed(fleet, store):
    host = fleet.host()
    id = fleet.submit()

    token = host.claim(id)

    record = fleet.record(id)
    assert (record.state, record.phase, record.host) == (JobState.RUNNING, "claimed", "pi4")
    assert record.attempt == 1
    assert record.started_at is None
    assert abs((record.claimed_at or 0) - fleet.now()) < 5
    ends = store.connection.zscore(fleet.key("state", "running"), id)
    assert abs(ends - fleet.now() - LEASE) < 5
    assert host.register() == ("ok", [token])


def test_a_worker_with_another_key_than_the_fleets_is_given_nothing(fleet, store):
    host, id = fleet.host(), fleet.submit()

    def ask(key_id: str) -> Claim | str:
        return store.leases.claim(host.who, ["any"], uid="u", lease=LEASE, key_id=key_id)

    assert ask("0123abcd") == "key"
    assert fleet.record(id).state is JobState.QUEUED
    assert isinstance(ask(fleet.signer.key_id), Claim)


def test_a_job_is_claimed_once(fleet):
    first, second = fleet.host("pi4"), fleet.host("mini")
    id = fleet.submit()

    token = first.claim(id)

    assert second.ask() == "none"
    assert first.ask() == "none"
    assert token.id == id


def test_the_higher_priority_goes_first_then_who_came_first(fleet):
    ids = [fleet.submit(priority=priority) for priority in (5, 2, 10, 5, 8, 1, 10)]

    order = taken(fleet.host())

    assert order == [ids[i] for i in (2, 6, 4, 0, 3, 1, 5)]


def test_jobs_submitted_one_after_another_are_claimed_in_that_order(fleet):
    ids = [fleet.submit() for _ in range(40)]

    assert taken(fleet.host()) == ids


def test_jobs_of_one_batch_are_claimed_in_their_order(fleet):
    ids = fleet.submit_all([spec() for _ in range(100)])
    last = fleet.submit()

    assert taken(fleet.host()) == [*ids, last]


def test_the_order_holds_over_all_queues_of_a_host(fleet):
    targets = ["pi4", None, "pi4", None, None, "pi4"]
    ids = [fleet.submit(host=host) for host in targets]
    urgent = fleet.submit(host="pi4", priority=10)

    assert taken(fleet.host("pi4")) == [urgent, *ids]


def test_a_job_for_one_host_is_not_given_to_another(fleet):
    fleet.submit(host="mini")

    assert fleet.host("pi4").ask() == "none"
    assert fleet.host("mini").ask() != "none"


def test_only_the_queues_that_were_named_are_served(fleet):
    fleet.submit()
    host = fleet.host()

    assert host.ask("host.pi4") == "none"
    assert isinstance(host.ask("any"), Claim)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_queue_member_without_a_queued_record_is_dropped(fleet, store, is_known):
    host = fleet.host()
    stale = fleet.submit() if is_known else "nosuchjob000"
    if is_known:
        host.run(stale)
    real = fleet.submit()
    store.connection.zadd(fleet.key("queue", "any"), {stale: 0})

    token = host.claim(real)

    assert token.id == real
    assert host.ask() == "none"


def test_many_stale_members_cost_no_claim(fleet, store):
    real = fleet.submit(priority=1)
    store.connection.zadd(fleet.key("queue", "any"), {f"stale{i}": i for i in range(50)})

    assert fleet.host().claim(real)


def test_an_unregistered_host_gets_nothing(fleet):
    id = fleet.submit()
    stranger = FleetHost(fleet, Registration("ghost", "install", "boot"))

    assert stranger.ask() == "replaced"
    assert fleet.state(id) is JobState.QUEUED


def test_an_install_that_was_replaced_gets_nothing(fleet):
    old = fleet.host("pi4", install="old card")
    fleet.clock.advance(LEASE + 1)
    new = fleet.host("pi4", install="new card")
    id = fleet.submit()

    assert old.ask() == "replaced"
    assert new.claim(id)


def test_each_claim_is_a_new_attempt_with_its_own_uid(fleet):
    host = fleet.host()
    id = fleet.submit()
    first = host.claim(id)
    host.release(first)

    second = host.claim(id)

    assert (first.attempt, second.attempt) == (1, 2)
    assert first.uid != second.uid


def test_a_claim_tells_how_often_the_job_failed_before(fleet):
    host = fleet.host()
    id = fleet.submit(retries=3)
    for _ in range(2):
        host.finish(host.start(id), JobState.SCHEDULED, delay=1)
        fleet.clock.advance(2)
        fleet.tick()

    claim = host.ask()

    assert isinstance(claim, Claim)
    assert claim.failures == 2


def test_a_requeued_job_keeps_its_place_in_the_queue(fleet):
    host = fleet.host()
    first, second = fleet.submit(), fleet.submit()

    host.release(host.claim(first))

    assert taken(host) == [first, second]


def test_a_claim_clears_what_the_attempt_before_left(fleet, store):
    host = fleet.host()
    id = fleet.submit(retries=1)
    failed = host.start(id)
    store.logs.append(failed, 0, b"12345")
    host.finish(failed, JobState.SCHEDULED, exit_code=3, delay=1)
    fleet.clock.advance(2)
    fleet.tick()

    host.claim(id)

    record = fleet.record(id)
    assert record.exit_code is None
    assert record.finished_at is None
    assert record.started_at is None
    assert store.logs.appended(id) == 0


def test_a_claim_whose_answer_got_lost_expires_and_costs_nothing(fleet):
    host = fleet.host()
    id = fleet.submit()
    host.claim(id)
    fleet.clock.advance(LEASE + 1)

    assert fleet.tick() == [("expired", id)]

    assert fleet.state(id) is JobState.QUEUED
    assert fleet.record(id).losses == 0


def test_slots_that_claim_at_the_same_time_never_get_the_same_job(fleet):
    hosts = [fleet.host(name) for name in ("pi4", "mini", "mac", "gpu")]
    ids = fleet.submit_all([spec() for _ in range(80)])
    start, orders = threading.Barrier(len(hosts)), []

    def claim_all(host):
        start.wait()
        orders.append(taken(host))

    threads = [threading.Thread(target=claim_all, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(id for order in orders for id in order) == sorted(ids)
    assert all(order == sorted(order, key=ids.index) for order in orders)


def test_a_token_names_the_attempt_and_not_only_its_number(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.claim(id)

    assert host.beat(Token(id, token.attempt, "another uid")) == ["stale"]
    assert host.beat(Token(id, token.attempt + 1, token.uid)) == ["stale"]
    assert host.beat(token) == ["ok"]


def test_a_claim_that_arrives_after_its_worker_registered_again_takes_nothing(fleet):
    late = fleet.host()
    id = fleet.submit()
    again = FleetHost(fleet, replace(late.who, session="second"))

    again.register()

    assert late.ask() == "replaced"
    assert fleet.state(id) is JobState.QUEUED
    assert again.claim(id)


def test_a_claim_takes_one_nudge_off_its_queue_unless_a_nudge_brought_it(fleet, store):
    host = fleet.host()
    for _ in range(3):
        fleet.submit()

    host.claim()
    store.leases.claim(host.who, ["any"], uid="u", lease=LEASE, nudged=True)

    assert len(fleet.nudges()) == 2
