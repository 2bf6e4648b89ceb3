"""Where jobs wait: queues of needs, preferred hosts, another job's host; what holds them back."""

from __future__ import annotations

import pytest

from relayq.dispatch import Dispatcher
from relayq.errors import NoSuchHost, Unplaceable
from relayq.model.jobs import JobState, Spec
from relayq.store.leases import Claim
from tests.redis.fleet import LEASE, Fleet, spec
from tests.redis.scenes import ask, prefer, woken

QUEUED = JobState.QUEUED
NEEDS_FFMPEG = "needs.ffmpeg"


# Queues of needs


def test_a_new_queue_is_in_the_registry_and_every_claim_hears_of_it(fleet, store):
    host = fleet.host()
    before = store.leases.registry("pi4")

    id = fleet.submit(needs=("ffmpeg",))

    after = store.leases.registry("pi4")
    assert (before.queues, after.queues) == ((), (NEEDS_FFMPEG,))
    assert ask(host, {"any": ""}, registry=before.version) == "queues"
    claim = ask(host, {"any": "", NEEDS_FFMPEG: ""}, registry=after.version)
    assert isinstance(claim, Claim)
    assert claim.token.id == id


def test_a_second_job_makes_no_new_version(fleet, store):
    fleet.submit(needs=("ffmpeg",))
    before = store.leases.registry("pi4")

    fleet.submit(needs=("ffmpeg",))

    assert store.leases.registry("pi4") == before


def test_hosts_with_a_free_slot_are_woken_and_no_others(fleet, store):
    idle, busy, drained, stopped = map(fleet.host, ("idle", "busy", "drained", "stopped"))
    for _ in range(2):
        busy.start(fleet.submit(host="busy"))
    store.hosts.drain("drained")
    stopped.park()

    fleet.submit_all([spec(needs=("ffmpeg",)) for _ in range(5)])

    assert woken(fleet, idle.name) == [NEEDS_FFMPEG]
    assert [woken(fleet, host.name) for host in (busy, drained, stopped)] == [[], [], []]


def test_a_job_that_goes_back_to_its_queue_wakes_hosts_again(fleet):
    host, other = fleet.host(), fleet.host("other")
    fleet.submit(needs=("ffmpeg",))
    claim = ask(host, {NEEDS_FFMPEG: ""})
    assert isinstance(claim, Claim)
    woken(fleet, other.name)

    host.release(claim.token)

    assert woken(fleet, other.name) == [NEEDS_FFMPEG]


def test_a_queue_that_nobody_used_for_a_day_is_forgotten(fleet, store):
    host = fleet.host()
    fleet.submit(needs=("ffmpeg",))
    kept = fleet.submit(needs=("tape",))
    claim = ask(host, {NEEDS_FFMPEG: ""})
    assert isinstance(claim, Claim)
    host.finish(claim.token)
    before = store.leases.registry("pi4")

    fleet.clock.advance(90_000)
    fleet.tick()

    after = store.leases.registry("pi4")
    assert after.queues == ("needs.tape",)
    assert after.version != before.version
    assert fleet.state(kept) is QUEUED


def test_a_job_is_moved_to_other_constraints(fleet, store):
    fleet.host()
    host = fleet.host("able")
    store.hosts.publish(host.who, {"capabilities": ["ffmpeg"]})
    id = prefer(fleet, "pi4")

    fleet.dispatcher.move(id, needs=("ffmpeg",))

    record = fleet.record(id)
    assert (record.queue, record.overflow_at) == (NEEDS_FFMPEG, None)
    assert store.leases.registry("able").queues == (NEEDS_FFMPEG,)
    assert isinstance(ask(host, {NEEDS_FFMPEG: ""}), Claim)


def test_a_priority_alone_leaves_a_job_where_it_waits(fleet):
    fleet.host()
    id = prefer(fleet, "pi4")

    fleet.dispatcher.move(id, priority=9)

    record = fleet.record(id)
    assert (record.queue, record.priority) == ("host.pi4", 9)
    assert record.overflow_at is not None


def test_many_jobs_that_one_end_releases_wake_a_host_once(fleet):
    host = fleet.host()
    parent = fleet.submit()
    for _ in range(3):
        fleet.submit(after=(parent,), needs=("ffmpeg",))
    fleet.submit(after=(parent,), needs=("tape",))
    token = host.start(parent)
    woken(fleet, host.name)

    host.finish(token)

    assert sorted(woken(fleet, host.name)) == [NEEDS_FFMPEG, "needs.tape"]


def test_messages_to_a_host_that_takes_none_are_bounded(fleet, store):
    host = fleet.host()
    store.connection.rpush(fleet.key("control", host.name), *["x"] * 1000)

    fleet.submit(needs=("ffmpeg",))

    assert store.connection.llen(fleet.key("control", host.name)) == 1000
    assert store.connection.ttl(fleet.key("control", host.name)) > 0


# What a host has too little of, now


def test_a_queue_whose_jobs_have_no_room_is_passed_over(fleet):
    host = fleet.host()
    big, small = fleet.submit(resources={"cuda": 2}), fleet.submit(resources={"cuda": 1})

    claim = ask(host, {"needs.cuda=2": "!cuda", "needs.cuda=1": "cuda"})

    assert isinstance(claim, Claim)
    assert claim.token.id == small
    assert fleet.state(big) is QUEUED


def test_what_a_job_has_long_waited_for_is_given_to_none_after_it(fleet):
    host = fleet.host()
    big = fleet.submit(resources={"cuda": 2})
    fleet.submit(resources={"cuda": 1})
    other = fleet.submit()
    fleet.clock.advance(LEASE + 1)

    queues = {"any": "", "needs.cuda=2": "!cuda", "needs.cuda=1": "cuda"}
    claim = ask(host, queues)

    assert isinstance(claim, Claim)
    assert claim.token.id == other, "what takes none of it goes on"
    assert ask(host, queues) == "none"
    claim = ask(host, {**queues, "needs.cuda=2": "cuda"})
    assert isinstance(claim, Claim)
    assert claim.token.id == big


def test_a_higher_priority_still_overtakes_what_waits_for_room(fleet):
    host = fleet.host()
    fleet.submit(resources={"cuda": 2})
    fleet.clock.advance(LEASE + 1)
    urgent = fleet.submit(resources={"cuda": 1}, priority=10)

    claim = ask(host, {"needs.cuda=2": "!cuda", "needs.cuda=1": "cuda"})

    assert isinstance(claim, Claim)
    assert claim.token.id == urgent


# The whole fleet, drained and paused hosts


def test_a_drained_or_paused_host_claims_nothing(fleet, store):
    host, id = fleet.host(), fleet.submit()
    store.hosts.drain("pi4")
    assert host.ask() == "barred"
    store.hosts.drain("pi4", undo=True)
    store.pauses.pause(host="pi4", seconds=60)
    assert host.ask() == "barred"

    fleet.clock.advance(61)

    assert host.claim(id)


def test_a_paused_fleet_claims_nothing(fleet, store):
    host, id = fleet.host(), fleet.submit()
    store.pauses.pause()

    assert host.ask() == "barred"

    store.pauses.resume()
    assert host.claim(id)


def test_no_more_run_than_the_fleet_may_and_the_end_of_one_wakes_the_others(fleet):
    first, second = fleet.host("first"), fleet.host("second")
    token = first.start(fleet.submit(host="first"))
    fleet.submit(host="second")

    assert ask(second, {"host.second": ""}, max_running=1) == "full"
    woken(fleet, "second")
    first.finish(token)

    assert woken(fleet, "second") == [""]
    assert isinstance(ask(second, {"host.second": ""}, max_running=1), Claim)


# A host that is preferred


def test_a_job_waits_for_the_host_that_it_prefers_and_then_for_any(fleet):
    fleet.host()
    other = fleet.host("other")
    id = prefer(fleet, "pi4", overflow=20)
    assert other.ask() == "none"
    assert fleet.tick() == []

    fleet.clock.advance(21)

    assert fleet.tick() == [("widened", id)]
    record = fleet.record(id)
    assert (record.queue, record.overflow_at) == ("any", None)
    assert other.claim(id)


def test_the_preferred_host_takes_it_before(fleet):
    host = fleet.host()
    id = prefer(fleet, "pi4")

    token = host.claim(id)
    fleet.clock.advance(21)

    assert fleet.tick() == []
    host.release(token)
    assert fleet.record(id).queue == "host.pi4"
    fleet.clock.advance(21)
    assert fleet.tick() == [("widened", id)]


def test_the_wait_begins_when_a_job_is_queued(fleet):
    fleet.host()
    id = prefer(fleet, "pi4", due_at=fleet.now() + 100)
    fleet.clock.advance(101)
    assert fleet.tick() == [("due", id)]
    assert fleet.record(id).overflow_at == pytest.approx(fleet.now() + 20, abs=5)

    fleet.clock.advance(10)
    assert fleet.tick() == []
    fleet.clock.advance(11)

    assert fleet.tick() == [("widened", id)]


def test_a_widened_job_keeps_its_place(fleet):
    host = fleet.host()
    other = fleet.host("other")
    first, second = prefer(fleet, "other"), fleet.submit()
    fleet.clock.advance(21)
    fleet.tick()

    assert [host.claim().id, other.claim().id] == [first, second]


# Where they are sent


@pytest.fixture
def able(fleet, store):
    """Two hosts of which one, `able`, has an alias, a label, ffmpeg and a cuda slot."""
    fleet.host("plain")
    facts = {
        "aliases": ["mac"],
        "labels": ["heavy"],
        "capabilities": ["ffmpeg"],
        "resources": {"cuda": 1},
    }
    store.hosts.publish(fleet.host("able").who, facts)
    return fleet


def locate(fleet: Fleet, *specs: Spec, **options) -> list[tuple[str | None, str, str | None]]:
    """Return host, queue and wide queue of these jobs."""
    dispatcher: Dispatcher = fleet.dispatcher
    named, placements = dispatcher.locate(specs, online_within=LEASE, **options)
    return [(one.host, p.queue, p.wide) for one, p in zip(named, placements, strict=True)]


def test_a_host_may_be_called_by_its_alias(able):
    assert locate(able, spec(host="mac")) == [("able", "host.able", None)]


def test_an_unknown_host_is_refused_or_waited_for(able):
    with pytest.raises(NoSuchHost):
        locate(able, spec(host="moon"))

    assert locate(able, spec(host="moon"), wait_for_host=True) == [("moon", "host.moon", None)]


def test_what_no_host_can_is_refused_with_what_each_lacks(able):
    one = spec(needs=("ffmpeg", "tape"), resources={"cuda": 2})

    with pytest.raises(Unplaceable) as caught:
        locate(able, one)

    assert caught.value.missing == {
        "plain": ["lacks ffmpeg", "lacks tape", "has no cuda"],
        "able": ["lacks tape", "has 1 of 2 cuda"],
    }
    assert locate(able, one, wait_for_host=True) == [(None, "needs.ffmpeg,tape,cuda=2", None)]


def test_jobs_that_may_run_anywhere_ask_for_no_host(fleet):
    assert locate(fleet) == []
    assert fleet.dispatcher.locate([spec()], online_within=LEASE)[1] == ()


def test_a_preferred_host_is_waited_for_with_the_wide_queue_behind(able):
    assert locate(able, spec(prefer="mac")) == [(None, "host.able", "any")]


def test_one_job_after_another_goes_to_the_hosts_in_turn(able):
    chosen = [locate(able, spec(), balance="round-robin")[0][1] for _ in range(4)]

    assert chosen in (
        ["host.able", "host.plain"] * 2,
        ["host.plain", "host.able"] * 2,
    )


def test_of_many_jobs_each_counts_for_the_load_of_its_host(able):
    placed = locate(able, *[spec() for _ in range(10)], balance="least-loaded")

    assert sorted(queue for _, queue, _ in placed) == ["host.able"] * 5 + ["host.plain"] * 5
