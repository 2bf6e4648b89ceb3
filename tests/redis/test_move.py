"""move: a job that hasn't started goes elsewhere, or before others, and stays signed."""

import pytest

from relayq.errors import Conflict, NoSuchHost, NoSuchJob, WrongFleetKey
from relayq.model.jobs import JobState
from relayq.signing import Signer
from tests.redis.fleet import Fleet, spec
from tests.redis.scenes import reach

MOVABLE = [JobState.QUEUED, JobState.SCHEDULED, JobState.WAITING]


@pytest.fixture
def mini(fleet):
    return fleet.host("mini")


@pytest.mark.parametrize("state", MOVABLE)
def test_a_job_moves_with_a_spec_that_its_new_host_believes(fleet, store, mini, state):
    id = reach(fleet, state, name="encode", host="pi4")
    old = fleet.record(id).spec

    fleet.dispatcher.move(id, host="mini", priority=9)

    record = fleet.record(id)
    spec = fleet.signer.check_spec(store.jobs.signed_spec(id), id=id)
    assert (record.state, record.queue, record.priority) == (state, "host.mini", 9)
    assert (spec.host, spec.priority) == ("mini", 9)
    assert (spec.name, spec.payload, spec.due_at) == (old.name, old.payload, old.due_at)


def test_the_new_host_is_nudged_and_the_old_one_gets_nothing(fleet, mini):
    pi4 = fleet.host("pi4")
    id = fleet.submit(host="pi4")

    fleet.dispatcher.move(id, host="mini")

    assert [nudge["headers"]["id"] for nudge in fleet.nudges("host.mini")] == [id]
    assert pi4.ask() == "none"
    assert mini.claim(id)


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.WAITING])
def test_a_job_that_is_not_queued_yet_nudges_nobody(fleet, mini, state):
    id = reach(fleet, state)

    fleet.dispatcher.move(id, host="mini")

    assert fleet.nudges("host.mini") == []


def test_a_scheduled_job_is_queued_where_it_was_moved_to(fleet, mini):
    id = reach(fleet, JobState.SCHEDULED)
    fleet.dispatcher.move(id, host="mini")

    fleet.clock.advance(4000)
    fleet.tick()

    assert mini.claim(id)


def test_a_job_can_be_given_to_whichever_host_is_free(fleet):
    id = fleet.submit(host="asleep")
    pi4 = fleet.host("pi4")

    fleet.dispatcher.move(id, host="any")

    assert fleet.record(id).target == "-"
    assert pi4.claim(id)


def test_a_moved_job_keeps_its_place(fleet):
    host = fleet.host("pi4")
    first, second, third = fleet.submit_all([spec(host="asleep"), spec(), spec(host="asleep")])

    for id in (third, first):
        fleet.dispatcher.move(id, host="any")

    assert [host.claim().id for _ in range(3)] == [first, second, third]


def test_a_priority_decides_first_and_the_place_is_kept_there_too(fleet):
    host = fleet.host()
    ids = fleet.submit_all([spec() for _ in range(4)])

    for id in (ids[3], ids[2]):
        fleet.dispatcher.move(id, priority=8)

    assert [host.claim().id for _ in range(4)] == [ids[2], ids[3], ids[0], ids[1]]


def test_a_priority_that_goes_up_and_down_again_changes_nothing(fleet):
    host = fleet.host()
    ids = fleet.submit_all([spec() for _ in range(3)])

    fleet.dispatcher.move(ids[1], priority=10)
    fleet.dispatcher.move(ids[1], priority=5)

    assert [host.claim().id for _ in range(3)] == ids


@pytest.mark.parametrize("state", sorted(set(JobState) - set(MOVABLE)))
def test_a_job_that_has_started_is_not_moved(fleet, mini, state):
    id = reach(fleet, state)

    with pytest.raises(Conflict, match=f"is {state}; only a job that hasn't started"):
        fleet.dispatcher.move(id, host="mini")

    assert fleet.record(id).queue == "any"


def test_an_unknown_host_or_job_is_refused(fleet, mini):
    id = fleet.submit()

    with pytest.raises(NoSuchHost, match=r"no such host: mars \(known hosts: mini\)"):
        fleet.dispatcher.move(id, host="mars")
    with pytest.raises(NoSuchJob):
        fleet.dispatcher.move("nosuchjob000", host="mini")


def test_a_spec_that_the_fleet_did_not_sign_is_not_signed_by_a_move(fleet, store, mini):
    id = fleet.submit()
    head, mac, body = store.jobs.signed_spec(id).split(b" ", 2)
    forged = b" ".join((head, mac, body.replace(b"echo hi", b"echo bad")))
    store.connection.set(fleet.key("spec", id), forged)

    with pytest.raises(Conflict, match="its signature is wrong"):
        fleet.dispatcher.move(id, host="mini")

    assert store.jobs.signed_spec(id) == forged
    assert fleet.record(id).queue == "any"


def test_another_jobs_spec_is_not_signed_by_a_move(fleet, store):
    id, other = fleet.submit(), fleet.submit()
    store.connection.set(fleet.key("spec", id), store.jobs.signed_spec(other))

    with pytest.raises(Conflict, match=f"was signed for job {other}"):
        fleet.dispatcher.move(id, priority=9)


def test_who_has_another_fleet_key_moves_nothing(fleet, store, clock):
    id = fleet.submit()
    stranger = Fleet(store, clock, Signer(b"another key" * 4))

    with pytest.raises(WrongFleetKey):
        stranger.dispatcher.move(id, priority=9)


def test_a_move_that_another_one_overtook_is_made_from_what_that_left(fleet, store, mini):
    id = fleet.submit()
    read, overtaken = store.jobs.signed_spec, []

    def overtake(asked):
        signed = read(asked)
        if not overtaken:
            overtaken.append(asked)
            fleet.dispatcher.move(id, priority=9)
        return signed

    store.jobs.signed_spec = overtake
    fleet.dispatcher.move(id, host="mini")

    record = fleet.record(id)
    assert (record.queue, record.priority) == ("host.mini", 9)
    assert (record.spec.host, record.spec.priority) == ("mini", 9)


def test_a_job_that_is_always_overtaken_is_left_alone(fleet, store):
    id = fleet.submit()
    store.jobs.move = lambda *_, **__: ("changed", "")

    with pytest.raises(Conflict, match="somebody else"):
        fleet.dispatcher.move(id, priority=9)
