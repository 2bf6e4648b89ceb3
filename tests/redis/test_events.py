"""The audit trail: each script tells in the same step what it did, where and for whom."""

import threading

import pytest

from relayq.model.jobs import JobState
from relayq.results import JobResult
from relayq.session import Session
from relayq.store.leases import Keep
from tests.redis.fleet import KEEP, LEASE, FleetHost, spec
from tests.redis.scenes import reach
from tests.redis.test_hosts import another


@pytest.fixture
def ann(store):
    """Who asks."""
    store.jobs.who = "ann@mac-mini"
    return store.jobs.who


def story(store, id):
    """Return what happened to a job, in words."""
    return [event.what for event in store.events.read(job=id)]


def last(store, what):
    return [event for event in store.events.read() if event.what == what][-1]


def test_a_jobs_story_is_told_in_order_with_host_attempt_and_end(fleet, store):
    token = fleet.host().start(fleet.submit())
    fleet.host().finish(token, JobState.FAILED, exit_code=3)

    claimed, ended = [e for e in store.events.read(job=token.id) if e.what != "submitted"]

    assert (claimed.what, claimed.host, claimed.attempt) == ("claimed", "pi4", 1)
    assert (ended.what, ended.state, ended.reason) == ("ended", "failed", "exit")
    assert (ended.host, ended.attempt, ended.exit_code) == ("pi4", 1, 3)
    assert claimed.at <= ended.at == pytest.approx(fleet.now(), abs=5)


def test_a_retry_of_the_jobs_own_says_why_the_attempt_ended_and_when_the_next_is_due(fleet, store):
    host = fleet.host()
    token = host.start(fleet.submit(retries=1))
    host.finish(token, JobState.SCHEDULED, exit_code=75, delay=30)
    fleet.clock.advance(31)
    fleet.tick()

    event = last(store, "retrying")

    assert (event.reason, event.exit_code, event.attempt, event.host) == ("exit", 75, 1, "pi4")
    assert event.due_at == pytest.approx(fleet.now(), abs=5)
    assert story(store, token.id)[-2:] == ["retrying", "due"]


def test_a_loss_and_its_verdict_are_told(fleet, store):
    fleet.lose(fleet.host(), id := fleet.submit())

    assert story(store, id)[-3:] == ["claimed", "lost", "judged"]
    verdict = last(store, "judged")
    assert (verdict.state, verdict.reason, verdict.host, verdict.attempt) == (
        "queued",
        "lost",
        "pi4",
        1,
    )


@pytest.mark.parametrize(("on_lost", "what"), [("ask", "parked"), ("fail", "ended")])
def test_a_verdict_that_ends_or_parks_the_job_is_told_as_that(fleet, store, on_lost, what):
    fleet.lose(fleet.host(), id := fleet.submit(on_lost=on_lost))

    assert story(store, id)[-2:] == ["lost", what]
    assert last(store, what).reason == "lost"


def test_a_claim_that_never_started_is_told_apart_from_a_loss(fleet, store):
    fleet.host().claim(fleet.submit())
    fleet.expire()

    assert last(store, "judged").reason == "unstarted"


def test_a_lost_job_that_is_found_again_is_told(fleet, store):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.expire()

    host.beat(token)
    host.beat(token)

    assert story(store, token.id)[-2:] == ["lost", "found"]


def test_a_late_outcome_is_told_once(fleet, store):
    host = fleet.host()
    lost = fleet.lose(host, fleet.submit())
    for _ in range(3):
        host.finish(lost)

    assert story(store, lost.id).count("late") == 1
    assert last(store, "late").state == "succeeded"


def test_what_a_host_gives_back_is_told_apart_from_what_it_never_began(fleet, store):
    host = fleet.host()
    id = fleet.submit()
    host.release(host.claim(id))
    host.release(host.start(id))

    assert [what for what in story(store, id) if what not in ("submitted", "claimed")] == [
        "released",
        "handed_back",
    ]


def test_what_comes_after_a_job_is_told_when_it_is_ready_or_fails(fleet, store):
    host = fleet.host()
    good, bad = fleet.submit(), fleet.submit()
    ready, doomed = fleet.submit(after=(good,)), fleet.submit(after=(bad,))
    host.run(good)
    host.run(bad, JobState.FAILED)

    assert story(store, ready)[-1] == "ready"
    assert (story(store, doomed)[-1], last(store, "ended").reason) == ("ended", "upstream")


# Who


def test_a_cancel_names_who_asked_and_the_end_follows(fleet, store, ann):
    id = fleet.submit()

    fleet.cancel(id)

    assert story(store, id)[-2:] == ["cancelled", "ended"]
    assert last(store, "cancelled").who == ann


def test_a_cancel_of_a_running_job_is_told_once_however_often_it_is_asked(fleet, store, ann):
    id = reach(fleet, JobState.RUNNING)

    for _ in range(3):
        fleet.cancel(id)

    assert story(store, id)[-1] == "cancelled"
    assert story(store, id).count("cancelled") == 1
    assert (last(store, "cancelled").host, last(store, "cancelled").who) == ("pi4", ann)


def test_a_cancel_that_came_too_late_is_no_event(fleet, store):
    id = reach(fleet, JobState.SUCCEEDED)
    before = story(store, id)

    fleet.cancel(id)

    assert story(store, id) == before


def test_a_retry_a_move_and_a_word_on_a_parked_job_name_who_asked(fleet, store, ann):
    parked = reach(fleet, JobState.NEEDS_HUMAN)
    fleet.resolve(parked, JobState.SUCCEEDED)
    fleet.retry(parked)
    fleet.dispatcher.move(parked, host="pi4", priority=9)

    assert story(store, parked)[-4:] == ["resolved", "ended", "retried", "moved"]
    assert [last(store, what).who for what in ("resolved", "retried", "moved")] == [ann] * 3
    assert (last(store, "moved").queue, last(store, "moved").priority) == ("host.pi4", 9)
    assert last(store, "retried").state == "succeeded"


def test_forgetting_many_jobs_is_one_event(fleet, store, ann):
    host = fleet.host()
    ids = [host.run(fleet.submit()).id for _ in range(3)]
    queued = fleet.submit()

    store.jobs.forget([queued, *ids])

    event = last(store, "forgotten")
    assert (event.job, event.count, event.who) == (ids[0], 3, ann)


def test_pruning_many_jobs_is_one_event(fleet, store):
    host = fleet.host()
    ids = [host.run(fleet.submit()).id for _ in range(3)]

    fleet.tick(keep=Keep(age=KEEP, jobs=1))

    event = last(store, "pruned")
    assert (event.job, event.count, event.who) == (ids[0], 2, None)


# Hosts


def test_a_host_that_comes_and_goes_is_told(fleet, store):
    fleet.host().park()

    assert [event.what for event in store.events.read(host="pi4")] == ["registered", "stopped"]


def test_a_refused_host_is_told_once_however_often_it_asks(fleet, store):
    fleet.host()
    for _ in range(3):
        another(fleet).register()

    refused = [event for event in store.events.read(host="pi4") if event.what == "refused"]
    assert [(event.reason, event.install) for event in refused] == [("taken", "another card")]


def test_a_host_with_another_key_is_told(fleet, store):
    fleet.submit()

    FleetHost(fleet, another(fleet).who).register(key_id="deadbeef")

    assert last(store, "refused").reason == "wrong_key"


def test_a_quiet_time_is_told_with_its_cause(fleet, store):
    fleet.tick()
    fleet.clock.advance(3600)
    fleet.tick(is_regular=False)
    fleet.clock.advance(-1800)
    fleet.tick(is_regular=False)

    assert last(store, "quiet").reason == "gap"
    assert last(store, "quiet").seconds == pytest.approx(3600, abs=5)
    assert last(store, "clock").seconds == pytest.approx(-1800, abs=5)


def test_a_storm_is_told(fleet, store):
    for name in ("pi4", "mini"):
        fleet.host(name).start(fleet.submit())
    fleet.expire()

    assert (last(store, "quiet").reason, last(store, "quiet").count) == ("storm", 2)


# Reading


def test_the_trail_is_read_by_count_instant_job_and_host(fleet, store):
    pi4, mini = fleet.host("pi4"), fleet.host("mini")
    first, second = pi4.run(fleet.submit()).id, mini.run(fleet.submit()).id
    everything = store.events.read()

    assert store.events.read(count=3) == everything[-3:]
    assert store.events.read(since=everything[2].at) == [
        event for event in everything if event.at >= everything[2].at
    ]
    assert store.events.read(since=fleet.now() + 60) == []
    assert {event.job for event in store.events.read(job=first)} == {first}
    assert {event.host for event in store.events.read(host="mini")} == {"mini"}
    assert second in {event.job for event in store.events.read(host="mini")}


def test_a_long_trail_is_read_a_page_at_a_time(fleet, store, monkeypatch):
    monkeypatch.setattr("relayq.store.events._PAGE", 3)
    host = fleet.host()
    ids = [host.run(fleet.submit()).id for _ in range(10)]

    ended = [event.job for event in store.events.read() if event.what == "ended"]

    assert ended == ids
    assert [event.what for event in store.events.read(count=4)] == [
        event.what for event in store.events.read()[-4:]
    ]


def test_a_follower_gets_what_comes_after_it_began(fleet, store):
    fleet.submit()
    place = store.events.last()
    assert store.events.follow(place, patience=0.01) == (place, [])
    timer = threading.Timer(0.05, fleet.host)
    timer.start()

    place, events = store.events.follow(place, patience=5)

    timer.join()
    assert [(event.what, event.host) for event in events] == [("registered", "pi4")]
    assert store.events.follow(place, patience=0.01) == (place, [])


def test_a_follower_of_an_empty_trail_gets_the_first_event(fleet, store):
    assert store.events.last() == "0"
    fleet.host()

    _, events = store.events.follow("0", patience=1)

    assert [event.what for event in events] == ["registered"]


def test_the_trail_is_bounded(fleet, store):
    pipe = store.connection.pipeline()
    for _ in range(12_000):
        pipe.xadd(fleet.key("events"), {"e": "claimed", "j": "nosuchjob000"})
    pipe.execute()

    fleet.host()

    assert store.connection.xlen(fleet.key("events")) < 10_200
    assert last(store, "registered")


def test_a_large_submit_is_one_event(fleet, store):
    ids = fleet.submit_all([spec(submitter="ann@mac-mini") for _ in range(50)])

    event = last(store, "submitted")

    assert (event.job, event.count, event.who) == (ids[0], 50, "ann@mac-mini")


def test_a_submit_names_who_asked_and_where_the_job_went(fleet, store):
    id = fleet.submit(submitter="ann@mac-mini", host="pi4", due_at=fleet.now() + LEASE)

    [event] = store.events.read(job=id)

    assert (event.what, event.who) == ("submitted", "ann@mac-mini")
    assert (event.state, event.queue) == ("scheduled", "host.pi4")


def test_a_submit_that_made_no_job_is_no_event(fleet, store):
    one = spec(unique="a")
    fleet.dispatcher.submit([one])
    before = store.events.read()

    fleet.dispatcher.submit([one])
    fleet.dispatcher.submit([spec(unique="a")])

    assert store.events.read() == before


# A job's own history


def history(fleet, store, id, count=None):
    return JobResult(Session(store, fleet.signer, print), id).events(count)


def test_a_job_of_a_large_submit_has_its_submit_in_its_history(fleet, store):
    first, second = fleet.submit_all([spec(submitter="ann@mini", host="pi4") for _ in range(2)])
    for id in (first, second):
        fleet.host().run(id)

    submitted, claimed, ended = history(fleet, store, second)

    assert (submitted.what, submitted.who, submitted.queue) == ("submitted", "ann@mini", "host.pi4")
    assert submitted.at == pytest.approx(claimed.at, abs=5)
    assert (claimed.what, ended.what) == ("claimed", "ended")


def test_a_jobs_history_begins_with_its_submit_once(fleet, store):
    id = fleet.submit()

    assert [event.what for event in history(fleet, store, id)] == ["submitted"]


def test_only_the_end_of_a_long_history_may_be_asked_for(fleet, store):
    id = fleet.submit()
    fleet.host().run(id)
    for _ in range(5):
        fleet.retry(id)
        fleet.host().run(id)

    assert [event.what for event in history(fleet, store, id, 3)] == ["retried", "claimed", "ended"]
    assert len(history(fleet, store, id)) == 3 + 5 * 3
