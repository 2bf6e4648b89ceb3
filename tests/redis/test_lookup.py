"""Finding jobs: by prefix, by state, by host; waiting for their end."""

import threading

import pytest

from relayq.errors import AmbiguousId, NoSuchJob
from relayq.model.jobs import JobState
from tests.redis.fleet import spec
from tests.redis.scenes import reach
from tests.waiting import until

LONG = 60.0  #: patience that no test uses up


def test_any_unique_prefix_is_enough(fleet, store):
    fleet.submit(id="abc100000000")
    fleet.submit(id="abd200000000")

    assert store.jobs.find("abc") == "abc100000000"
    assert store.jobs.find("abd200000000") == "abd200000000"


def test_an_id_may_be_typed_with_capitals_and_look_alikes(fleet, store):
    fleet.submit(id="ab0110000000")

    assert store.jobs.find(" ABOIL ") == "ab0110000000"


def test_an_ambiguous_prefix_names_the_matches(fleet, store):
    ids = [fleet.submit(id=f"ab{i:010}") for i in range(3)]

    with pytest.raises(AmbiguousId, match="'ab' matches several") as caught:
        store.jobs.find("ab")

    assert caught.value.matches == ids


def test_a_whole_id_that_begins_another_is_that_job(fleet, store):
    fleet.submit(id="abcd")
    fleet.submit(id="abcd1")

    assert store.jobs.find("abcd") == "abcd"
    assert store.jobs.find("abcd1") == "abcd1"


@pytest.mark.parametrize("text", ["zzzz", "", "  ", "abc*", "[a", "abc1000000001"])
def test_what_begins_no_id_is_unknown(fleet, store, text):
    fleet.submit(id="abc100000000")

    with pytest.raises(NoSuchJob):
        store.jobs.find(text)


def test_a_pruned_job_is_not_found(fleet, store):
    id = reach(fleet, JobState.SUCCEEDED)
    fleet.clock.advance(1e9)
    fleet.tick()

    with pytest.raises(NoSuchJob):
        store.jobs.find(id)
    with pytest.raises(NoSuchJob):
        store.jobs.fetch(id)


def test_many_records_come_in_the_order_asked_without_the_unknown(fleet, store):
    first, second = fleet.submit(), fleet.submit()

    records = store.jobs.fetch_many([second, "nosuchjob000", first])

    assert [record.id for record in records] == [second, first]
    assert store.jobs.fetch_many([]) == []


def test_a_record_whose_spec_cannot_be_read_is_still_a_record(fleet, store):
    id = fleet.submit()
    store.connection.set(fleet.key("spec", id), b"garbage")

    assert fleet.record(id).spec is None
    assert fleet.state(id) is JobState.QUEUED


# Lists and counts


def test_every_state_is_counted(fleet, store):
    host = fleet.host()
    for _ in range(2):
        host.run(fleet.submit(), JobState.FAILED)
    fleet.submit()

    counts = store.jobs.count()

    assert counts.keys() == set(JobState)
    assert (counts[JobState.FAILED], counts[JobState.QUEUED]) == (2, 1)
    assert sum(counts.values()) == 3


@pytest.mark.parametrize("state", list(JobState))
def test_a_list_can_be_of_one_state(fleet, store, state):
    id = reach(fleet, state)

    listed = [record.id for record in store.jobs.list(states=[state])]
    others = [record.id for record in store.jobs.list(states=set(JobState) - {state})]

    assert id in listed
    assert id not in others


def test_a_list_begins_with_the_newest_and_is_as_long_as_asked(fleet, store):
    ids = []
    for _ in range(5):
        ids.append(fleet.submit())
        fleet.clock.advance(1)

    listed = [record.id for record in store.jobs.list(limit=3)]

    assert listed == ids[:1:-1]


def test_a_list_of_no_state_is_empty(fleet, store):
    fleet.submit()

    assert store.jobs.list(states=[]) == []


def test_a_hosts_list_has_what_it_runs_what_it_ran_and_what_waits_for_it(fleet, store):
    pi4, mini = fleet.host("pi4"), fleet.host("mini")
    ran, runs = fleet.submit(), fleet.submit()
    pi4.run(ran)
    pi4.start(runs)
    waits = fleet.submit(host="pi4")
    mini.run(fleet.submit(host="mini"))

    listed = {record.id for record in store.jobs.list(host="pi4")}
    running = [r.id for r in store.jobs.list(host="pi4", states=[JobState.RUNNING])]

    assert listed == {ran, runs, waits}
    assert running == [runs]


def test_a_hosts_list_has_what_is_due_there_later(fleet, store):
    fleet.host("pi4")
    later = fleet.submit(host="pi4", due_at=fleet.now() + 3600)

    assert [record.id for record in store.jobs.list(host="pi4")] == [later]


@pytest.mark.parametrize("connection", ["redis7"], indirect=True)
def test_a_hosts_list_is_as_long_as_asked_however_much_waits_elsewhere(fleet, store):
    fleet.submit_all([spec(host="pi4", due_at=fleet.now() + 60)])
    fleet.submit_all([spec(host="mini", due_at=fleet.now() + 3600) for _ in range(700)])
    fleet.submit_all([spec(host="pi4") for _ in range(700)])

    assert len(store.jobs.list(host="pi4", limit=1000)) == 701
    assert len(store.jobs.list(host="pi4", limit=100)) == 100


@pytest.mark.parametrize("connection", ["redis7"], indirect=True)
def test_a_hosts_list_of_one_state_is_not_shortened_by_the_others(fleet, store):
    host = fleet.host("pi4")
    ended = fleet.submit()
    host.run(ended)
    for _ in fleet.submit_all([spec() for _ in range(700)]):
        host.claim()
    fleet.submit_all([spec(host="pi4") for _ in range(20)])

    listed = store.jobs.list(host="pi4", states=[JobState.SUCCEEDED], limit=10)

    assert [record.id for record in listed] == [ended]


def test_the_list_of_an_unknown_host_is_empty(fleet, store):
    fleet.submit()

    assert store.jobs.list(host="ghost") == []


@pytest.mark.parametrize("connection", ["redis7", "redis62"], indirect=True)
@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_hosts_list_reads_little_more_than_it_shows(fleet, store, is_claimed):
    ids = fleet.submit_all([spec(host="pi4") for _ in range(1000)])
    host = fleet.host("pi4")
    for _ in ids if is_claimed else []:
        host.claim()
    before = records_read(store)

    assert len(store.jobs.list(host="pi4", limit=10)) == 10

    assert records_read(store) - before <= 500


def records_read(store):
    return store.connection.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]


# Waiting


def test_waiting_ends_with_patience(fleet, store):
    id = fleet.submit()

    assert store.jobs.wait([id], patience=0.02) == {}


def test_an_end_wakes_a_waiting_client_at_once(fleet, store):
    host = fleet.host()
    first, second = host.start(fleet.submit()), host.start(fleet.submit())
    seen = []
    waiting = threading.Thread(
        target=lambda: seen.append(store.jobs.wait([first.id, second.id], patience=LONG)),
        daemon=True,
    )
    waiting.start()

    host.finish(second)

    until(lambda: seen, what="the client to be woken")
    waiting.join()
    assert list(seen[0]) == [second.id]


def test_an_end_that_was_announced_before_is_seen_too(fleet, store):
    host = fleet.host()
    ended, queued = host.run(fleet.submit()).id, fleet.submit()

    assert list(store.jobs.wait([ended, queued], patience=LONG)) == [ended]


def test_a_job_that_parks_wakes_who_waits(fleet, store):
    id = reach(fleet, JobState.NEEDS_HUMAN)

    assert list(store.jobs.wait([id], patience=LONG)) == [id]
