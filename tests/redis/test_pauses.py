"""pause, resume, report: what people want to stand still, and what does."""

from __future__ import annotations

import pytest

from relayq.model.jobs import JobState
from relayq.store.leases import Registration
from relayq.store.pauses import Wish
from tests.redis.scenes import reach

BY_MOTH = {"reason": "a film", "who": "moth@mac"}


@pytest.fixture
def host(fleet):
    return fleet.host()


def report(fleet, host, *attempts):
    return fleet.store.pauses.report(host.who, attempts)


def told(fleet, host):
    """Return the messages that wait for a host."""
    found = []
    while message := fleet.store.hosts.listen(host.name, patience=0.01):
        found.append(message)
    return found


def happened(fleet):
    return [event.what for event in fleet.store.events.read()]


def test_a_running_job_is_paused_until_it_is_resumed(fleet, host):
    token = host.start(fleet.submit())

    assert fleet.store.pauses.pause(id=token.id, **BY_MOTH) == ["paused", "pi4"]
    assert told(fleet, host) == [{"op": "beat"}]
    assert report(fleet, host, (token, "")).attempts == [Wish("moth@mac", "a film")]
    assert fleet.record(token.id).pause_at == pytest.approx(fleet.now(), abs=5)

    assert fleet.store.pauses.resume(id=token.id, who="moth@mac") == ["resumed", "pi4"]
    assert told(fleet, host) == [{"op": "beat"}]
    assert report(fleet, host, (token, "")).attempts == [None]
    assert fleet.store.pauses.resume(id=token.id) == ["unpaused"]
    assert fleet.record(token.id).pause_at is None
    assert happened(fleet)[-2:] == ["paused", "resumed"]


def test_a_pause_may_end_by_itself(fleet, host):
    token = host.start(fleet.submit())
    fleet.store.pauses.pause(id=token.id, seconds=3600)

    [wish] = report(fleet, host, (token, "")).attempts
    fleet.clock.advance(3601)

    assert wish is not None
    assert wish.left == pytest.approx(3600, abs=5)
    assert report(fleet, host, (token, "")).attempts == [None]
    assert fleet.record(token.id).pause_at is None


@pytest.mark.parametrize(
    "state", [s for s in JobState if s not in (JobState.RUNNING, JobState.LOST)]
)
def test_only_a_running_job_can_be_paused(fleet, state):
    id = reach(fleet, state)

    assert fleet.store.pauses.pause(id=id) == ["unfit", state]
    assert fleet.store.pauses.resume(id=id) == ["unfit", state]


def test_a_lost_job_obeys_when_its_host_is_back(fleet, host):
    token = host.start(fleet.submit())
    fleet.expire()
    fleet.store.pauses.pause(id=token.id)

    assert host.beat(token) == ["ok"]
    assert report(fleet, host, (token, "")).attempts == [Wish("", "")]


def test_what_nobody_knows_cant_be_paused(fleet):
    assert fleet.store.pauses.pause(id="nothing") == ["gone"]
    assert fleet.store.pauses.resume(id="nothing") == ["gone"]
    assert fleet.store.pauses.pause(host="nobody") == ["no_host"]
    assert fleet.store.pauses.resume(host="nobody") == ["no_host"]


def test_a_host_that_is_paused_claims_nothing(fleet, host):
    other = fleet.host("mini")
    fleet.submit()

    assert fleet.store.pauses.pause(host="pi4", **BY_MOTH) == ["paused", "pi4"]

    assert told(fleet, host) == [{"op": "beat"}]
    assert told(fleet, other) == []
    assert host.ask() == "barred"
    assert report(fleet, host).host == Wish("moth@mac", "a film")
    assert report(fleet, other).host is None
    assert fleet.store.pauses.resume(host="pi4") == ["resumed", "pi4"]
    assert fleet.store.pauses.resume(host="pi4") == ["unpaused"]
    assert report(fleet, host).host is None
    host.claim()


def test_a_host_whose_pause_is_over_claims_again(fleet, host):
    fleet.submit()
    fleet.store.pauses.pause(host="pi4", seconds=60)
    fleet.clock.advance(61)

    assert report(fleet, host).host is None
    host.claim()


def test_a_pause_of_the_fleet_is_every_hosts_also_of_those_to_come(fleet, host):
    mini = fleet.host("mini")

    assert sorted(fleet.store.pauses.pause(**BY_MOTH)) == ["mini", "paused", "pi4"]

    late = fleet.host("late")
    assert [told(fleet, one) for one in (host, mini)] == [[{"op": "beat"}]] * 2
    assert all(report(fleet, one).host == Wish(**BY_MOTH) for one in (host, mini, late))
    assert "resumed" in fleet.store.pauses.resume()
    assert report(fleet, late).host is None
    assert fleet.store.pauses.resume() == ["unpaused"]


def test_what_stands_still_is_in_the_record(fleet, host):
    token = host.start(fleet.submit())

    report(fleet, host, (token, "on battery 40%"))
    since = fleet.record(token.id).paused_at
    fleet.clock.advance(30)
    report(fleet, host, (token, "on battery 39%"))

    record = fleet.record(token.id)
    assert record.state is JobState.RUNNING
    assert (record.paused, record.paused_at) == ("on battery 39%", since)
    report(fleet, host, (token, ""))
    assert (fleet.record(token.id).paused, fleet.record(token.id).paused_at) == (None, None)
    assert happened(fleet)[-2:] == ["frozen", "thawed"]


def test_a_pause_goes_with_its_attempt(fleet, host):
    token = host.start(fleet.submit())
    fleet.store.pauses.pause(id=token.id)
    report(fleet, host, (token, "paused by hand"))

    host.release(token)

    again = host.start(token.id)
    record = fleet.record(token.id)
    assert (record.pause_at, record.paused, record.paused_at) == (None, None, None)
    assert report(fleet, host, (again, "")).attempts == [None]


def test_an_attempt_that_lost_its_lease_says_nothing(fleet, host):
    token = fleet.lose(host, fleet.submit())
    again = fleet.host("mini").start(token.id)

    assert report(fleet, host, (token, "on battery")).attempts == [None]
    assert fleet.record(again.id).paused is None


def test_a_name_that_is_another_machines_now_hears_nothing(fleet, host):
    fleet.store.pauses.pause(host="pi4")

    stranger = Registration("pi4", "another install", "boot-1")
    assert fleet.store.pauses.report(stranger, []) is None


def test_a_wish_reads_as_a_sentence():
    assert str(Wish("", "")) == "by hand"
    assert str(Wish("a@b", "")) == "by a@b"
    assert str(Wish("a@b", "c")) == "by a@b: c"
