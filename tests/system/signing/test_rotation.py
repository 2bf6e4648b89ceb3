"""relayq key rotate, with a worker and clients that have the old key."""

from __future__ import annotations

import shutil

import pytest

from relayq import Relay, clock
from relayq.errors import BadSignature, WrongFleetKey
from relayq.rotation import rotate
from relayq.signing import Signer, key_id_of, load_keys
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def other_machine(shared_fleet, tmp_path, monkeypatch):
    """A client with a home of its own, which has the fleet's key as it is now."""
    home = tmp_path / "other"
    home.mkdir(mode=0o700)
    shutil.copy(shared_fleet.home / "fleet.key", home / "fleet.key")
    monkeypatch.setenv("RELAYQ_HOME", str(home))
    relay = Relay(url=shared_fleet.relay._url, say=lambda _: None)
    relay.session()
    yield relay
    relay.close()


def turn(fleet, **options):
    session = fleet.relay.session()
    options = {"at_once": False, **options}
    return rotate(session.signer, fleet.config, session.store, who="me", **options)


def test_all_machines_go_on_with_the_new_key(shared_fleet, other_machine, tmp_path):
    before = shared_fleet.job.run("echo before")
    before.wait(20)
    go = tmp_path / "go"
    running = shared_fleet.job.run(f"until test -e {go}; do sleep 0.1; done; echo went on")
    until(lambda: running.state == "running", within=20, what="it to run")
    schedule = shared_fleet.job.schedule(
        f"ticks-{tmp_path.name}", "every 1s", "echo tick", paused=True
    )
    old = shared_fleet.relay.session().signer.key_id

    new = turn(shared_fleet)
    go.touch()

    assert key_id_of(new.key) != old
    assert key_id_of(new.former[0].key) == old
    assert running.get(timeout=20) == "went on"
    assert shared_fleet.job.run("echo here").get(timeout=20) == "here"
    # One that missed it finds its way, by as many turns as it missed.
    turn(shared_fleet)
    assert other_machine.job.run("echo there").get(timeout=20) == "there"
    assert other_machine.job.fetch(before.id).get(timeout=20) == "before"
    assert load_keys(other_machine.config.fleet_key_path) == load_keys(
        shared_fleet.home / "fleet.key"
    )
    schedule.resume()
    ran = until(lambda: schedule.runs(), within=20, what="a run")
    assert shared_fleet.job.fetch(ran[0].id).get(timeout=20) == "tick"
    schedule.remove()


def test_at_once_nothing_of_the_old_key_is_good(shared_fleet):
    before = shared_fleet.job.run("echo before")
    before.wait(20)

    turn(shared_fleet, at_once=True)

    with pytest.raises(BadSignature):
        shared_fleet.job.fetch(before.id).outcome()
    assert shared_fleet.job.run("echo after").get(timeout=20) == "after"


def test_at_once_a_job_that_waits_is_run_by_nobody(shared_fleet, tmp_path):
    job = shared_fleet.job.run(f"touch {tmp_path / 'ran'}", due_at=clock.now() + 2)

    turn(shared_fleet, at_once=True)

    until(lambda: job.record.attempt, within=20, what="a claim")
    shared_fleet.job.run("true").get(timeout=20)
    assert not (tmp_path / "ran").exists()
    job.cancel()


def test_a_worker_that_was_away_comes_back_with_the_new_key(mended_fleet):
    mended_fleet.end_worker()
    turn(mended_fleet)

    mended_fleet.start_worker()

    assert mended_fleet.job.run("echo back").get(timeout=20) == "back"


def test_a_machine_that_was_away_turns_the_newest_key(shared_fleet, other_machine, tmp_path):
    name = f"away-{tmp_path.name}"
    schedule = shared_fleet.job.schedule(name, "every 1d", "echo tick", paused=True)
    turn(shared_fleet)

    session = other_machine.session()
    mine = rotate(session.signer, other_machine.config, session.store, at_once=False, who="away")

    assert shared_fleet.job.run("echo here").get(timeout=20) == "here"
    assert load_keys(shared_fleet.home / "fleet.key").text == mine.text
    assert len(mine.former) >= 2
    schedule.remove()


def test_what_is_scheduled_where_the_old_key_still_is_gets_the_newest(shared_fleet, other_machine):
    turn(shared_fleet)

    made = other_machine.job.schedule("late", "every 1d", "echo tick", paused=True)

    session = shared_fleet.relay.session()
    signed = session.store.schedules.fetch("late").record.signed
    assert signed.startswith(session.signer.key_id.encode())
    made.remove()


def test_a_schedule_that_nobody_signed_keeps_no_key_from_being_turned(shared_fleet, tmp_path):
    name = f"forged-{tmp_path.name}"
    schedule = shared_fleet.job.schedule(name, "every 1d", "echo tick", paused=True)
    session = shared_fleet.relay.session()
    record = session.store.keys("schedule", name)
    forged = session.signer.sign_note("schedule:another", b"{}").replace(b"{}", b"[]")
    session.store.connection.hset(record, "signed", forged)
    old = session.signer.key_id

    turn(shared_fleet)

    assert session.signer.key_id != old
    assert session.store.connection.hget(record, "signed") == forged
    schedule.remove()


def test_who_hasnt_the_old_key_can_neither_turn_it_nor_plant_one(shared_fleet, other_machine):
    session = other_machine.session()
    mine, stranger = session.signer, Signer(b"s" * 32)
    schedule = other_machine.job.schedule("stays", "every 1d", "echo tick", paused=True)
    with pytest.raises(WrongFleetKey, match="fleet key isn't the broker's") as caught:
        rotate(stranger, other_machine.config, session.store, at_once=False, who="stranger")
    assert "fleet.key" in caught.value.hint
    schedule.remove()

    planted = f"key:{mine.key_id}"
    session.store.connection.hset(session.store.keys("meta"), planted, b"rqs1" + b"x" * 100)
    try:
        with pytest.raises(WrongFleetKey, match="wasn't sealed with this machine's"):
            mine.ring.renew()
    finally:
        session.store.connection.hdel(session.store.keys("meta"), planted)
