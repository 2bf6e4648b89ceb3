"""beat, park and release: how an attempt keeps its lease, and how it gives it back."""

import json

import pytest

from relayq.model.jobs import JobState, Token
from relayq.store.leases import Registration
from tests.redis.fleet import LEASE, FleetHost


def lease_left(fleet, id):
    return fleet.store.connection.zscore(fleet.key("state", "running"), id) - fleet.now()


def test_a_lease_is_kept_for_hours_by_beats(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.start(id)

    for _ in range(20):
        fleet.clock.advance(15 * 60)
        assert host.beat(token) == ["ok"]
        fleet.tick()

    assert fleet.state(id) is JobState.RUNNING
    assert fleet.record(id).attempt == 1


def test_the_first_beat_after_the_claim_starts_the_attempt(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.claim(id)
    fleet.clock.advance(10)

    assert host.beat(token, phase="started") == ["ok"]

    record = fleet.record(id)
    assert record.phase == "started"
    assert abs((record.started_at or 0) - fleet.now()) < 5


def test_a_beat_in_the_phase_claimed_renews_without_starting(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.claim(id)
    fleet.clock.advance(50)

    assert host.beat(token, phase="claimed") == ["ok"]

    assert fleet.record(id).phase == "claimed"
    assert lease_left(fleet, id) == pytest.approx(LEASE, abs=5)


def test_the_start_is_the_first_beats_and_stays(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.start(id)
    started_at = fleet.record(id).started_at

    fleet.clock.advance(30)
    host.beat(token)

    assert fleet.record(id).started_at == started_at


def test_each_attempt_has_a_start_of_its_own(fleet):
    host = fleet.host()
    id = fleet.submit(retries=1)
    first = host.start(id)
    host.finish(first, JobState.SCHEDULED, delay=1)
    fleet.clock.advance(100)
    fleet.tick()

    host.start(id)

    record = fleet.record(id)
    assert record.phase == "started"
    assert abs((record.started_at or 0) - fleet.now()) < 5


def test_a_beat_never_shortens_a_lease(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.start(id)

    host.park(token, duration=900)
    host.beat(token)

    assert lease_left(fleet, id) == pytest.approx(900, abs=5)


def test_a_beat_names_many_attempts_and_gets_a_word_for_each(fleet):
    host = fleet.host()
    fine, cancelled, ended = (host.start(fleet.submit()) for _ in range(3))
    fleet.cancel(cancelled.id)
    host.finish(ended)
    unknown = Token("nosuchjob000", 1, "uid")

    words = host.beat(fine, cancelled, ended, unknown)

    assert words == ["ok", "cancel", "stale", "stale"]


def test_a_beat_renews_only_what_it_names(fleet):
    host = fleet.host()
    named, forgotten = host.start(fleet.submit()), host.start(fleet.submit())
    fleet.clock.advance(50)

    host.beat(named)
    fleet.clock.advance(20)
    fleet.tick()

    assert fleet.states(named.id, forgotten.id) == [JobState.RUNNING, JobState.LOST]


def test_a_beat_finds_a_lost_job_again(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.start(id)
    fleet.expire()
    assert fleet.state(id) is JobState.LOST

    assert host.beat(token) == ["ok"]

    assert fleet.state(id) is JobState.RUNNING
    assert lease_left(fleet, id) == pytest.approx(LEASE, abs=5)
    assert fleet.record(id).losses == 0


def test_after_the_verdict_the_old_token_is_stale(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = fleet.lose(host, id)

    assert fleet.state(id) is JobState.QUEUED
    assert host.beat(token) == ["stale"]
    assert fleet.state(id) is JobState.QUEUED


def test_after_the_next_claim_the_old_token_is_stale(fleet):
    old, new = fleet.host("pi4"), fleet.host("mini")
    id = fleet.submit()
    lost = fleet.lose(old, id)
    new.start(id)

    assert old.beat(lost) == ["stale"]
    assert fleet.record(id).host == "mini"


def test_a_cancelled_claim_is_told_so_and_never_starts(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.claim(id)
    fleet.cancel(id)

    assert host.beat(token, phase="started") == ["cancel"]

    assert fleet.record(id).phase == "claimed"
    assert fleet.record(id).started_at is None


def test_a_beat_with_facts_is_the_hosts_heartbeat(fleet, store):
    host = fleet.host()
    fleet.clock.advance(50)

    host.beat(load=json.dumps({"os": "linux", "load": 3}))

    [known] = store.hosts.list(online_within=60)
    assert known.facts["load"] == 3
    assert known.seen_at == pytest.approx(fleet.now(), abs=5)


def test_a_beat_without_facts_is_not_a_heartbeat(fleet, store):
    host = fleet.host()
    [before] = store.hosts.list(online_within=60)
    fleet.clock.advance(50)

    host.beat()

    [after] = store.hosts.list(online_within=60)
    assert after.seen_at == before.seen_at


def test_a_beat_of_an_unregistered_host_renews_nothing(fleet, store):
    token = fleet.host().start(fleet.submit())
    fleet.clock.advance(30)

    ghost = Registration("ghost", "install", "boot")
    answer = store.leases.beat(ghost, [(token, "started")], lease=LEASE)

    assert answer == ("unregistered", [])
    assert lease_left(fleet, token.id) == pytest.approx(LEASE - 30, abs=5)


@pytest.mark.parametrize("change", ["install", "boot"])
def test_a_beat_of_a_replaced_install_or_boot_renews_nothing(fleet, store, change):
    host = fleet.host()
    token = host.start(fleet.submit())
    fleet.clock.advance(LEASE - 1)
    fleet.tick()
    fleet.clock.advance(2)
    if change == "install":
        fleet.host(install="another card")
    else:
        host.rebooted().register()

    answer = store.leases.beat(host.who, [(token, "started")], lease=LEASE)

    assert answer == ("replaced", [])
    assert lease_left(fleet, token.id) < 0


# park


def test_parked_attempts_outlive_a_long_restart(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())

    assert host.park(token, duration=900) == "ok"
    fleet.clock.advance(890)
    fleet.tick()

    assert fleet.state(token.id) is JobState.RUNNING
    assert host.register() == ("ok", [token])


def test_a_restarted_worker_takes_back_what_parking_gave(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    host.park(token, duration=900)

    host.register()

    assert lease_left(fleet, token.id) == pytest.approx(60, abs=5)


def test_a_parked_host_is_offline_until_it_registers_again(fleet, store):
    host = fleet.host()
    host.park()
    [parked] = store.hosts.list(online_within=60)

    host.register()

    [back] = store.hosts.list(online_within=60)
    assert not parked.is_online
    assert back.is_online


def test_parking_names_tokens_too_and_passes_over_stale_ones(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())
    wrong = Token(token.id, token.attempt, "another uid")

    assert host.park(wrong, Token("nosuchjob000", 1, "uid")) == "ok"

    assert lease_left(fleet, token.id) == pytest.approx(LEASE, abs=5)


def test_parking_never_shortens_a_lease_either(fleet):
    host = fleet.host()
    token = host.start(fleet.submit())

    host.park(token, duration=LEASE / 4)

    assert lease_left(fleet, token.id) == pytest.approx(LEASE, abs=5)


def test_a_replaced_install_cannot_park(fleet):
    old = fleet.host(install="old card")
    token = old.start(fleet.submit())
    fleet.clock.advance(LEASE + 1)
    fleet.host(install="new card")

    assert old.park(token) == "replaced"
    assert lease_left(fleet, token.id) < 0


# release


def test_a_released_job_is_queued_again_uncounted_with_a_nudge(fleet):
    host = fleet.host()
    id = fleet.submit()
    token = host.claim(id)

    assert host.release(token) == "queued"

    record = fleet.record(id)
    assert (record.state, record.losses, record.phase) == (JobState.QUEUED, 0, None)
    assert [nudge["headers"]["id"] for nudge in fleet.nudges()] == [id]
    assert host.register() == ("ok", [])


def test_a_release_honours_a_cancel_that_came_first(fleet):
    host = fleet.host()
    token = host.claim(fleet.submit())
    child = fleet.submit(after=(token.id,))
    fleet.cancel(token.id)

    assert host.release(token) == "cancelled"
    assert fleet.states(token.id, child) == [JobState.CANCELLED, JobState.FAILED]


def test_a_repeated_release_is_stale(fleet):
    host = fleet.host()
    token = host.claim(fleet.submit())
    host.release(token)

    assert host.release(token) == "stale"
    assert fleet.state(token.id) is JobState.QUEUED


def test_an_unknown_job_cannot_be_released(fleet):
    host = FleetHost(fleet, Registration("pi4", "install", "boot"))

    assert host.release(Token("nosuchjob000", 1, "uid")) == "gone"


def test_a_worker_that_stops_is_told_what_it_must_end_before_its_permit_is_made_longer(fleet):
    host = fleet.host()
    goes_on, stale, cancelled = (host.start(fleet.submit(host="pi4")) for _ in range(3))
    host.release(stale)
    fleet.cancel(cancelled.id)

    assert host.park_all(goes_on, stale, cancelled) == ("ok", ["ok", "stale", "cancel"])
