"""Hosts: a name is held by one live install, and a restart speaks only for its own."""

import pytest

from relayq.errors import NoSuchHost
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
    host.beat(facts="{}")
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
