"""sweep: whatever else wrote into Redis, records and indices agree again, and no job is stuck."""

import random

import pytest

from relayq.dispatch import TEMPLATE
from relayq.model.halts import Halt
from relayq.model.jobs import FINAL, JobState
from relayq.store.flows import FlowRecord
from relayq.store.keys import KEYS
from relayq.store.scripts import Scripts
from tests.redis.consistency import INDICES, problems
from tests.redis.fleet import LEASE, spec
from tests.redis.scenes import prefer, reach
from tests.redis.walk import Walk

DAY = 86_400.0


def sweep(store):
    """Walk once over everything; return what was mended."""
    done = []
    while True:
        done += store.sweep.step(lease=LEASE, template=TEMPLATE)
        if store.sweep.is_at_start():
            return done


def index_keys(store):
    """Return every index that exists."""
    keys = [key.decode() for key in store.connection.keys("*")]
    return sorted(key for key in keys if store.keys.parts(key)[0] in INDICES)


def remove(store, key, member):
    is_set = store.connection.type(key) == b"set"
    (store.connection.srem if is_set else store.connection.zrem)(key, member)


def test_a_sound_data_set_is_left_as_it_is(fleet, store):
    for state in sorted(JobState, key=lambda state: state is JobState.QUEUED):
        reach(fleet, state, name="encode", group="films")
    reach(fleet, JobState.QUEUED, unique="a")
    before = snapshot(store)

    assert sweep(store) == []

    assert snapshot(store) == before


def snapshot(store):
    """Return everything but the key with the walk's own place."""
    keys = {*store.connection.keys("*")} - {store.keys("meta").encode()}
    return {key: store.connection.dump(key) for key in keys}


@pytest.mark.parametrize("state", list(JobState))
def test_a_job_is_entered_again_where_it_is_missing(fleet, store, state):
    id = reach(fleet, state, name="encode", group="films")
    for key in index_keys(store):
        remove(store, key, id)
    assert problems(store)

    assert ("entered", id) in sweep(store)

    assert fleet.state(id) is state
    assert problems(store) == []


def test_a_queued_job_that_no_queue_has_is_claimed_after_the_sweep(fleet, store):
    id = fleet.submit()
    store.connection.delete(fleet.key("queue", "any"), fleet.key("nudges", "any"))
    assert fleet.host().ask() == "none"

    sweep(store)

    assert [nudge["headers"]["id"] for nudge in fleet.nudges()] == [id]
    assert fleet.host().claim(id)


def test_a_running_job_without_a_lease_gets_one_and_may_be_lost(fleet, store):
    token = fleet.host().start(fleet.submit())
    store.connection.delete(fleet.key("state", "running"))

    sweep(store)

    assert fleet.tick() == []
    assert fleet.expire() == [("expired", token.id)]


def test_a_lost_job_without_a_verdicts_instant_is_judged(fleet, store):
    id = reach(fleet, JobState.LOST)
    store.connection.delete(fleet.key("state", "lost"))

    sweep(store)

    assert fleet.judge() == [("judged", id)]


def test_a_scheduled_job_is_due_when_it_was_before(fleet, store):
    id = fleet.submit(due_at=fleet.now() + 3600)
    store.connection.delete(fleet.key("state", "scheduled"))

    sweep(store)

    fleet.clock.advance(3590)
    assert fleet.tick() == []
    fleet.clock.advance(20)
    assert fleet.tick() == [("due", id)]


@pytest.mark.parametrize("name", INDICES)
def test_a_member_that_no_record_has_there_is_removed(fleet, store, name):
    id = reach(fleet, JobState.SUCCEEDED)
    suffixes = {"state": "queued", "active": "pi4", "companions": id}
    suffix = suffixes.get(name, "elsewhere" if store.keys(name).endswith(":") else "")
    for member in ("nosuchjob000", b"\xff\x00", *([id] if name != "ids" else [])):
        if KEYS[name][1] == "set":
            store.connection.sadd(fleet.key(name, suffix), member)
        else:
            store.connection.zadd(fleet.key(name, suffix), {member: 1})

    sweep(store)

    assert problems(store) == []


def test_what_left_an_index_by_itself_since_that_was_read_was_not_mended(fleet, store, clock):
    token = fleet.host().start(fleet.submit())
    asked = {"template": TEMPLATE, "lease": LEASE, "index": "queue", "suffix": "any"}

    assert Scripts(store.connection, store.keys, clock).call("sweep", [token.id], **asked) == []


def test_what_a_graph_waits_for_is_found_again(fleet, store):
    parent, other, ended = fleet.submit(), fleet.submit(), fleet.submit(priority=10)
    fleet.host().run(ended, JobState.FAILED)
    tidy = spec(after=(parent, ended), after_any=(other,), when="failure", halts=("films",))
    fleet.dispatcher.submit([tidy], halts=[Halt("films")])
    keys = [fleet.key("dependents", id) for id in (parent, other)]
    store.connection.delete(*keys, fleet.key("halted", "films"))
    store.connection.hdel(fleet.key("job", tidy.id), "waits", "fails")

    assert ("entered", tidy.id) in sweep(store)

    assert problems(store) == []
    fleet.cancel(parent)
    fleet.cancel(other)
    assert fleet.state(tidy.id) is JobState.QUEUED


def test_a_job_whose_parents_have_all_ended_unheard_goes_on_or_is_skipped(fleet, store):
    parent = fleet.submit()
    always, failure = (fleet.submit(after=(parent,), when=when) for when in ("always", "failure"))
    store.connection.delete(fleet.key("dependents", parent))
    fleet.host().run(parent)

    sweep(store)

    assert fleet.state(always) is JobState.QUEUED
    assert fleet.record(failure).reason == "skipped"


def test_one_that_became_others_collects_though_their_end_was_not_heard(fleet, store):
    host = fleet.host()
    token, child = host.start(fleet.submit()), fleet.submit()
    store.leases.expand(token, [child], template=TEMPLATE)
    store.connection.delete(fleet.key("dependents", child))
    host.run(child)

    sweep(store)

    assert host.ask().fanned == (child,)


def test_a_workflows_run_without_jobs_is_removed_and_one_with_some_listed_again(fleet, store):
    one = spec(group="flow-f10w00000001", flow="f10w00000001")
    fleet.dispatcher.submit([one], flow=FlowRecord("f10w00000001", "release"))
    store.connection.delete(fleet.key("flows"))
    store.connection.hset(fleet.key("flow", "f10w00000002"), "name", "gone")
    store.connection.zadd(fleet.key("flows"), {"f10w00000003": 1})

    sweep(store)

    assert [flow.id for flow in store.flows.list()] == ["f10w00000001"]
    assert not store.connection.exists(fleet.key("flow", "f10w00000002"))


def test_a_queue_that_the_registry_lost_is_heard_of_again(fleet, store):
    fleet.host()
    id = fleet.submit(needs=("ffmpeg",))
    assert store.hosts.listen("pi4", patience=0.01) is not None
    before = store.leases.registry("pi4").version
    store.connection.delete(fleet.key("queues"))

    assert sweep(store) == [("entered", id)]

    registry = store.leases.registry("pi4")
    assert registry.queues == ("needs.ffmpeg",)
    assert registry.version != before
    wake = {"op": "wake", "queue": "needs.ffmpeg"}
    assert store.hosts.listen("pi4", patience=0.01) == wake


def test_what_is_no_queue_of_needs_leaves_the_registry(fleet, store):
    store.connection.zadd(fleet.key("queues"), {"nonsense": 2e9})
    before = store.leases.registry("pi4").version

    assert sweep(store) == [("removed", "nonsense")]

    registry = store.leases.registry("pi4")
    assert registry.queues == ()
    assert registry.version != before


def test_a_job_that_prefers_a_host_widens_after_the_sweep(fleet, store):
    id = prefer(fleet, "pi4", overflow=20)
    store.connection.delete(fleet.key("overflow"))

    assert sweep(store) == [("entered", id)]

    fleet.tick()
    fleet.clock.advance(21)
    assert fleet.tick() == [("widened", id)]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.WAITING, JobState.SCHEDULED])
def test_a_job_that_expires_does_so_after_the_sweep(fleet, store, state):
    id = reach(fleet, state, expires=60)
    store.connection.delete(fleet.key("expiring"))

    assert sweep(store) == [("entered", id)]

    fleet.tick()
    fleet.clock.advance(61)
    assert fleet.tick() == [("unclaimed", id)]


def test_what_was_claimed_once_cant_expire_any_more(fleet, store):
    id = fleet.submit(expires=60)
    fleet.host().run(id, JobState.FAILED)
    fleet.retry(id)
    store.connection.zadd(fleet.key("expiring"), {id: 1})
    store.connection.hset(fleet.key("job", id), "expires", 1)

    assert sweep(store) == [("removed", id)]


def test_what_runs_prefers_no_host_any_more(fleet, store):
    id = prefer(fleet, "pi4", overflow=20)
    fleet.host().start(id)
    store.connection.zadd(fleet.key("overflow"), {id: 1})
    store.connection.hset(fleet.key("job", id), "widens", 1)

    assert sweep(store) == [("removed", id)]
    store.connection.hdel(fleet.key("job", id), "widens")


def test_a_job_beside_another_one_follows_it_after_the_sweep(fleet, store):
    host, leader = fleet.host(), fleet.submit()
    beside = fleet.submit(with_job=leader)
    store.connection.delete(fleet.key("companions", leader))

    assert sweep(store) == [("entered", beside)]

    host.claim(leader)
    assert fleet.record(beside).queue == "host.pi4"


def test_a_job_whose_leader_was_claimed_unseen_goes_there(fleet, store):
    host, leader = fleet.host(), fleet.submit()
    beside = fleet.submit(with_job=leader)
    store.connection.delete(fleet.key("companions", leader))
    host.claim(leader)

    mended = sweep(store)

    # Once, and on no other queue in between.
    assert ("removed", beside) not in mended
    assert fleet.record(beside).queue == "host.pi4"
    assert [nudge["headers"]["id"] for nudge in fleet.nudges("host.pi4")] == [beside]


@pytest.mark.parametrize("options", [{}, {"due_at": 4e9}, {"after": True}])
def test_a_job_whose_leader_ended_unseen_without_a_host_fails(fleet, store, options):
    leader = fleet.submit(host="asleep")
    if "after" in options:
        options = {"after": (fleet.submit(host="asleep"),)}
    beside = fleet.submit(with_job=leader, **options)
    child = fleet.submit(after=(beside,))
    store.connection.delete(fleet.key("companions", leader))
    fleet.cancel(leader)

    mended = sweep(store)

    assert ("failed", beside) in mended
    assert ("removed", beside) not in mended
    assert fleet.states(beside, child) == [JobState.FAILED, JobState.FAILED]
    assert fleet.record(beside).reason == "upstream"


@pytest.mark.parametrize("state", list(JobState))
def test_nothing_is_left_of_a_job_whose_record_is_gone(fleet, store, state):
    id = reach(fleet, state, name="encode", unique="a")
    store.connection.delete(fleet.key("job", id))

    sweep(store)

    assert problems(store) == []
    assert not store.connection.keys(f"*{id}*")


def test_what_came_after_a_job_whose_record_is_gone_fails(fleet, store):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))
    grandchild = fleet.submit(after=(child,))
    store.connection.delete(fleet.key("job", parent))

    sweep(store)

    assert fleet.states(child, grandchild) == [JobState.FAILED] * 2
    assert fleet.record(child).reason == "upstream"


def test_a_child_whose_other_parent_succeeded_and_was_forgotten_still_waits(fleet, store):
    first, second = fleet.submit(), fleet.submit()
    child = fleet.submit(after=(first, second))
    host = fleet.host()
    host.run(first)
    store.jobs.forget([first])

    assert sweep(store) == []
    assert fleet.state(child) is JobState.WAITING

    host.run(second)
    assert fleet.state(child) is JobState.QUEUED


def test_a_child_whose_release_was_missed_is_released(fleet, store):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))
    store.connection.delete(fleet.key("dependents", parent))
    fleet.host().run(parent)
    assert fleet.state(child) is JobState.WAITING

    sweep(store)

    assert fleet.state(child) is JobState.QUEUED


def test_a_parent_that_forgot_its_child_knows_it_again(fleet, store):
    parent = fleet.submit()
    child = fleet.submit(after=(parent,))
    store.connection.delete(fleet.key("dependents", parent))

    sweep(store)

    fleet.host().run(parent)
    assert fleet.state(child) is JobState.QUEUED


def test_a_unique_key_whose_job_is_gone_is_free(fleet, store):
    store.connection.set(fleet.key("unique", "a"), "nosuchjob000")

    sweep(store)

    assert not store.connection.exists(fleet.key("unique", "a"))


def test_a_host_that_nobody_has_seen_for_long_and_no_job_is_about_is_dropped(fleet, store):
    fleet.host("pi4")
    fleet.clock.advance(91 * DAY)
    fleet.host("mini")

    assert sweep(store) == [("dropped", "pi4")]

    assert store.hosts.names() == {"mini"}
    assert not store.connection.keys("*pi4*")


def test_a_host_with_a_job_stays_however_long_it_was_away(fleet, store):
    fleet.host("ran").run(fleet.submit())
    fleet.host("waited-for")
    fleet.submit(host="waited-for")
    fleet.clock.advance(91 * DAY)

    assert sweep(store) == []
    assert store.hosts.names() == {"ran", "waited-for"}


def test_a_host_that_no_list_names_is_listed_again(fleet, store):
    fleet.host("pi4")
    store.connection.delete(fleet.key("hosts"))

    assert sweep(store) == [("entered", "pi4")]
    assert store.hosts.names() == {"pi4"}


def test_a_step_is_bounded_and_goes_on_where_the_last_one_was(fleet, store, monkeypatch):
    monkeypatch.setattr("relayq.store.sweep.STEP", 10)
    ids = [fleet.submit() for _ in range(600)]
    store.connection.delete(fleet.key("ids"))

    first = store.sweep.step(lease=LEASE, template=TEMPLATE)
    rest = sweep(store)

    assert len(first) < 100
    assert {id for _, id in [*first, *rest]} == set(ids)


def damage(store, chance):
    """Do to the data set what no script does."""
    for key in index_keys(store):
        is_set = store.connection.type(key) == b"set"
        members = store.connection.smembers(key) if is_set else store.connection.zrange(key, 0, -1)
        for member in sorted(members):
            if chance.random() < 0.2:
                remove(store, key, member)
        if chance.random() < 0.3 and not is_set:
            store.connection.zadd(key, {chance.choice(["nosuchjob000", "000000000001"]): 5})
    for key in sorted(store.connection.keys(f"{store.keys('job')}*")):
        if chance.random() < 0.1:
            store.connection.delete(key)


def test_after_any_damage_a_sweep_makes_records_and_indices_agree(fleet, store):
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    walk = Walk(fleet, seed)
    for _ in range(4):
        for _ in range(60):
            walk.look()
            walk.step()
        damage(store, walk.random)

        sweep(store)

        assert problems(store) == [], f"seed {seed}: {problems(store)}"
        walk.welcome_back()


def test_after_any_damage_every_job_that_is_left_still_ends(fleet, store):
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    walk = Walk(fleet, seed)
    for _ in range(120):
        walk.look()
        walk.step()
    damage(store, walk.random)
    sweep(store)

    for host in walk.hosts:
        host.register()
        store.hosts.drain(host.name, undo=True)
        store.pauses.resume(host=host.name)
    store.pauses.resume()
    for _ in range(300):
        fleet.clock.advance(LEASE - 1)
        fleet.tick()
        walk.serve()

    left = {record.id: record for record in store.jobs.list(limit=1000) if not is_final(record)}
    for id, record in left.items():
        match record.state:
            case JobState.WAITING:  # each for an older job, so the first of them has a reason
                awaited = {*record.spec.after, *record.spec.after_any, *record.fanned}
                assert awaited & left.keys(), f"seed {seed}: {id}"
            case JobState.QUEUED if record.queue.startswith("with."):
                assert record.queue.removeprefix("with.") in left, f"seed {seed}: {id}"
            case JobState.QUEUED:
                assert not walk.is_served(record.queue), f"seed {seed}: {id}"
            case _:
                assert record.state is JobState.NEEDS_HUMAN, f"seed {seed}: {id}"


def is_final(record):
    return record.state in FINAL
