"""Hosts: a name is held by one live install, and a restart speaks only for its own."""

import pytest

from relayq.errors import Conflict, NoSuchHost
from relayq.model.jobs import JobState
from relayq.store.leases import Registration
from tests.redis.fleet import LEASE, FleetHost


def another(fleet, name="pi4"):
    """Return another machine with the same name, not yet registered."""
    return FleetHost(fleet, Registration(name, "another card", "another boot"))


def test_a_registered_host_is_listed_with_its_facts(fleet, store):
    fleet.host("pi4")

    [host] = store.hosts.list(online_within=60)

    assert (host.name, host.install, host.boot) == ("pi4", "install-of-pi4", "boot-1")
    assert (host.slots, host.version, host.os) == (2, "0.1.0", "linux")
    assert host.is_online
    assert host.seen_at == pytest.approx(fleet.now(), abs=5)
    assert store.hosts.names() == {"pi4"}


def test_a_second_live_machine_with_the_same_name_is_refused(fleet, store):
    first = fleet.host()

    assert another(fleet).register() == ("taken", [])

    [host] = store.hosts.list(online_within=60)
    assert host.install == first.who.install


def test_a_name_is_free_once_its_holder_was_silent_for_a_lease(fleet):
    fleet.host()
    fleet.clock.advance(LEASE - 2)
    assert another(fleet).register() == ("taken", [])
    fleet.clock.advance(4)

    assert another(fleet).register() == ("ok", [])


def test_a_heartbeat_keeps_the_name(fleet):
    host = fleet.host()
    fleet.clock.advance(LEASE - 2)
    host.beat(load="{}")
    fleet.clock.advance(LEASE - 2)

    assert another(fleet).register() == ("taken", [])


def test_a_name_is_free_at_once_when_its_holder_stopped_on_purpose(fleet):
    fleet.host().park()

    assert another(fleet).register() == ("ok", [])


def test_a_worker_with_another_fleet_key_is_refused(fleet, store):
    fleet.submit()
    host = another(fleet)

    assert host.register(key_id="deadbeef") == ("wrong_key", [])
    assert store.hosts.names() == set()


def test_the_first_host_brings_the_key_of_an_empty_data_set(fleet):
    fleet.host("pi4")

    assert another(fleet, "mini").register(key_id="deadbeef") == ("wrong_key", [])


def test_a_restarted_worker_is_told_what_it_runs(fleet):
    host = fleet.host()
    running, lost, ended = (host.start(fleet.submit()) for _ in range(3))
    host.finish(ended)
    fleet.clock.advance(LEASE - 1)
    host.beat(running)
    fleet.clock.advance(2)
    fleet.tick()
    assert fleet.states(running.id, lost.id) == [JobState.RUNNING, JobState.LOST]

    word, tokens = host.register()

    assert word == "ok"
    assert set(tokens) == {running, lost}


def test_a_rebooted_host_is_told_what_it_ran_and_reports_it_lost(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())

    back = host.rebooted()
    assert back.register() == ("ok", [token])
    assert back.lose(token) == "queued"

    assert back.start(token.id).attempt == 2


def test_a_restart_is_not_told_what_was_given_to_others_since(fleet):
    host = fleet.host("pi4")
    lost = fleet.lose(host, fleet.submit())
    fleet.host("mini").start(lost.id)

    assert host.register() == ("ok", [])


def test_another_machine_is_not_told_what_the_last_one_of_its_name_ran(fleet):
    old = fleet.host()
    token = old.start(fleet.submit(on_lost="fail"))
    fleet.clock.advance(LEASE + 1)

    assert another(fleet).register() == ("ok", [])

    assert fleet.state(token.id) is JobState.RUNNING


def test_another_machine_is_not_told_at_its_restart_either(fleet):
    fleet.host().start(fleet.submit())
    fleet.clock.advance(LEASE + 1)
    new = another(fleet)
    new.register()
    own = new.start(fleet.submit())

    assert new.register() == ("ok", [own])


def test_a_machine_that_gets_its_name_back_is_told_what_it_runs(fleet):
    old = fleet.host()
    token = old.start(fleet.submit())
    fleet.clock.advance(LEASE + 1)
    new = another(fleet)
    new.register()
    new.park()

    assert old.register() == ("ok", [token])
    assert old.beat(token) == ["ok"]


def test_a_host_counts_what_it_runs_what_waits_for_it_and_what_it_ran(fleet, store):
    host = fleet.host()
    for _ in range(2):
        host.run(fleet.submit())
    host.start(fleet.submit())
    fleet.submit(host="pi4")

    [seen] = store.hosts.list(online_within=60)

    assert (seen.active, seen.queued, seen.finished) == (1, 1, 2)


def test_a_silent_host_is_offline_but_known(fleet, store):
    fleet.host("pi4")
    fleet.host("mini")
    store.connection.hset(fleet.key("host", "pi4"), "seen", fleet.now() - 100)

    hosts = store.hosts.list(online_within=60)

    assert [(host.name, host.is_online) for host in hosts] == [("mini", True), ("pi4", False)]


# The control list


def test_a_message_reaches_the_host_once(fleet, store):
    fleet.host()

    store.hosts.ask("pi4", {"op": "follow", "job": "x"})

    assert store.hosts.listen("pi4", patience=0.1) == {"op": "follow", "job": "x"}
    assert store.hosts.listen("pi4", patience=0.01) is None


def test_nobody_can_be_asked_who_never_registered(store):
    with pytest.raises(NoSuchHost, match="pi5"):
        store.hosts.ask("pi5", {"op": "follow"})


@pytest.mark.parametrize("garbage", [b"\xff\x00", b"not json", b"[1]", b'"text"', b""])
def test_garbage_on_the_control_list_is_ignored(fleet, store, garbage):
    fleet.host()
    store.hosts.ask("pi4", {"op": "first"})
    store.connection.lpush(fleet.key("control", "pi4"), garbage)

    assert store.hosts.listen("pi4", patience=0.1) is None
    assert store.hosts.listen("pi4", patience=0.1) == {"op": "first"}


# What a host says of itself, and what the fleet says of it


def the_host(store, name="pi4"):
    return next(host for host in store.hosts.list(online_within=60) if host.name == name)


def test_a_beat_brings_the_load_and_leaves_the_facts(fleet, store):
    host = fleet.host()

    host.beat(load='{"load": 0.5, "courtesy": {"state": "frozen", "reason": "on battery"}}')

    seen = the_host(store)
    assert (seen.os, seen.load) == ("linux", 0.5)
    assert seen.standing == ("paused", "on battery")


def test_facts_are_published_anew_by_who_has_the_name(fleet, store):
    host = fleet.host()
    host.beat(load='{"load": 0.5}')

    assert store.hosts.publish(host.who, {"os": "linux", "capabilities": ["ffmpeg"]})
    assert the_host(store).capabilities == ("ffmpeg",)
    assert the_host(store).load == 0.5

    assert not store.hosts.publish(another(fleet).who, {"os": "darwin"})
    assert the_host(store).os == "linux"


def test_labels_of_the_fleet_lie_over_those_of_the_host(fleet, store):
    host = fleet.host()
    store.hosts.publish(host.who, {"labels": ["slow", "pi"]})

    assert store.hosts.label("pi4", ["+heavy", "-slow"]) == "+heavy,-slow"
    assert the_host(store).labels == ("heavy", "pi")

    store.hosts.publish(host.who, {"labels": ["slow"]})
    assert the_host(store).labels == ("heavy",)
    assert store.hosts.label("pi4", ["=slow", "=heavy"]) == ""
    assert the_host(store).labels == ("slow",)


def test_capabilities_of_the_fleet_lie_over_those_of_the_host(fleet, store):
    host = fleet.host()
    store.hosts.publish(host.who, {"capabilities": ["ffmpeg", "git"], "labels": ["pi"]})

    assert store.hosts.declare("pi4", ["+xcode", "-git"]) == "-git,+xcode"

    assert the_host(store).capabilities == ("ffmpeg", "xcode")
    assert the_host(store).labels == ("pi",)
    assert store.leases.registry("pi4").capabilities == "-git,+xcode"
    assert store.hosts.declare("pi4", ["=git", "=xcode"]) == ""
    assert the_host(store).capabilities == ("ffmpeg", "git")


def test_labels_outlive_a_restart_and_a_change_tells_the_hosts_to_look(fleet, store):
    host = fleet.host()
    before = store.leases.registry("pi4").version

    store.hosts.label("pi4", ["+heavy"])
    host.register()

    assert store.leases.registry("pi4").labels == "+heavy"
    assert store.leases.registry("pi4").version != before
    with pytest.raises(NoSuchHost):
        store.hosts.label("pi5", ["+heavy"])


def test_a_change_of_labels_that_another_one_overtook_is_made_again(fleet, store, monkeypatch):
    fleet.host()
    read, stale = store.hosts.overlay, [""]
    store.hosts.label("pi4", ["+heavy"])
    monkeypatch.setattr(
        store.hosts, "overlay", lambda *which: stale.pop() if stale else read(*which)
    )

    assert store.hosts.label("pi4", ["+fast"]) == "+fast,+heavy"
    assert not stale


def test_a_drained_host_is_given_nothing_until_it_is_undrained(fleet, store):
    host = fleet.host()
    running = host.start(fleet.submit())

    assert store.hosts.drain("pi4", reason="a new disk", who="me@here")
    assert not store.hosts.drain("pi4", reason="a newer disk")
    assert not store.hosts.drain("pi4")

    id = fleet.submit()
    assert host.ask() == "barred"
    assert host.beat(running) == ["ok"]
    assert the_host(store).standing == ("draining", "a newer disk")
    host.finish(running)
    assert the_host(store).standing == ("drained", "a newer disk")
    assert host.register()[0] == "ok"
    assert host.ask() == "barred"

    assert store.hosts.drain("pi4", undo=True)
    assert not store.hosts.drain("pi4", undo=True)
    assert host.claim().id == id
    assert the_host(store).drained_at is None


def test_a_second_drain_leaves_the_instant_of_the_first(fleet, store):
    fleet.host()
    store.hosts.drain("pi4", reason="a new disk")
    since = the_host(store).drained_at

    fleet.clock.advance(60)
    store.hosts.drain("pi4", reason="a newer disk")

    assert the_host(store).drained_at == since


def test_an_undrained_host_is_told_to_look_for_work_at_once(fleet, store):
    fleet.host()
    store.hosts.drain("pi4")
    assert store.hosts.listen("pi4", patience=0.01) is None

    store.hosts.drain("pi4", undo=True)

    assert store.hosts.listen("pi4", patience=0.01) == {"op": "wake"}


def test_a_host_that_never_registered_cannot_be_drained(store):
    with pytest.raises(NoSuchHost):
        store.hosts.drain("pi5")
    assert store.hosts.names() == set()


def away(store, fleet, name):
    store.connection.hset(fleet.key("host", name), "seen", fleet.now() - LEASE - 1)


def test_a_host_is_forgotten_once_it_is_gone_and_owes_nothing(fleet, store):
    host = fleet.host()
    with pytest.raises(Conflict, match="pi4 is online"):
        store.hosts.dismiss("pi4", lease=LEASE)

    token = host.start(fleet.submit())
    away(store, fleet, "pi4")
    with pytest.raises(Conflict, match="jobs that run there"):
        store.hosts.dismiss("pi4", lease=LEASE)

    host.finish(token)
    waiting = fleet.submit(host="pi4")
    with pytest.raises(Conflict, match="jobs wait for pi4"):
        store.hosts.dismiss("pi4", lease=LEASE)

    fleet.cancel(waiting)
    store.hosts.dismiss("pi4", lease=LEASE)
    assert store.hosts.names() == set()
    assert fleet.record(token.id).host == "pi4"
    with pytest.raises(NoSuchHost):
        store.hosts.dismiss("pi4", lease=LEASE)
    assert host.register() == ("ok", [])


def test_a_host_for_which_alone_a_job_with_needs_waits_is_not_forgotten(fleet, store):
    fleet.host("other")
    fleet.host().park()
    fleet.submit(on=("other", "pi4"), needs=("ffmpeg",))
    fleet.submit(on=("pi4x",), needs=("ffmpeg",))
    alone = fleet.submit(needs=("ffmpeg",), on=("pi4",))

    with pytest.raises(Conflict, match="jobs wait for pi4") as caught:
        store.hosts.dismiss("pi4", lease=LEASE)

    # What the hint's filter finds is what stands in the way.
    assert caught.value.hint == "relayq move --all any --filter host=pi4"
    assert store.lookup.all({"host": "pi4"}) == [alone]
    fleet.cancel(alone)
    store.hosts.dismiss("pi4", lease=LEASE)
    assert store.hosts.names() == {"other"}


def test_a_host_that_stopped_on_purpose_can_be_forgotten_at_once(fleet, store):
    fleet.host().park()

    store.hosts.dismiss("pi4", lease=LEASE)

    assert store.hosts.names() == set()


def test_the_heir_of_a_host_goes_by_all_of_its_names(fleet, store):
    for name in ("old", "older", "new"):
        fleet.host(name)
    for name, heir in (("older", "old"), ("old", "new")):
        away(store, fleet, name)
        store.hosts.dismiss(name, lease=LEASE, heir=heir)

    assert store.hosts.names() == {"new"}
    assert the_host(store, "new").aliases == ("old", "older")


def test_an_heir_takes_over_the_jobs_with_needs_that_were_for_its_former_name(fleet, store):
    fleet.host("new")
    fleet.host("old").park()
    fleet.submit(needs=("ffmpeg",), on=("old",))

    store.hosts.dismiss("old", lease=LEASE, heir="new")

    assert store.hosts.names() == {"new"}


def test_a_host_has_no_heir_that_nobody_knows(fleet, store):
    fleet.host("old").park()

    with pytest.raises(NoSuchHost, match="new"):
        store.hosts.dismiss("old", lease=LEASE, heir="new")
    assert store.hosts.names() == {"old"}
