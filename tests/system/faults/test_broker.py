"""Rows 1 to 4: the broker is killed, is away, loses power, or hangs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from relayq import clock
from relayq.errors import BrokerUnavailable, NoSuchJob
from tests.system.faults import scene as scenes
from tests.system.faults.journal import check_invariants, ended, probe
from tests.waiting import until

pytestmark = pytest.mark.system


def test_an_idle_fleet_outlives_the_brokers_death(scene, journal):
    scene.broker.restart()

    journal.submit(scene.job)
    check_invariants(journal, scene.job, ["one"])


def test_fifty_running_jobs_outlive_the_brokers_death(own_scene, journal):
    own_scene.add("one", slots=50)
    results = [journal.submit(own_scene.job, 4, lines=20) for _ in range(50)]
    for result in results:
        journal.started(result)

    own_scene.broker.restart()

    records = check_invariants(journal, own_scene.job, ["one"], starts=1)
    assert {record.attempt for record in records.values()} == {1}


def test_jobs_that_end_during_a_long_outage_are_reported_and_work_goes_on(scene, journal):
    # Longer than all times of the protocol together.
    long, short = journal.submit(scene.job, 20), journal.submit(scene.job, 2, lines=2000)
    for result in (long, short):
        journal.started(result)

    scene.broker.kill()
    until(lambda: journal.notes("end", id=long.id), within=40, what="the end of both jobs")
    assert journal.notes("end", id=short.id)
    scene.broker.start()

    records = check_invariants(journal, scene.job, ["one"], starts=1)
    assert {record.attempt for record in records.values()} == {1}
    # Nudges are taken again, and not just what an idle slot finds by itself.
    nudges = "{rq}:k:any"
    scene.job.submit_many(["true"] * 20)
    until(lambda: not scene.store.connection.llen(nudges), within=20, what="no nudge to be left")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_outlive_five_minutes_without_a_broker_at_the_real_times(redis7, journal):
    with scenes.scene(redis7.binary, **scenes.REAL) as scene:
        scene.add("one")
        results = [journal.submit(scene.job, seconds, lines=500) for seconds in (60, 320)]
        for result in results:
            journal.started(result)

        scene.broker.kill()
        until(lambda: journal.notes("end", id=results[1].id), within=400, what="the jobs' end")
        scene.broker.start()

        records = check_invariants(journal, scene.job, ["one"], starts=1)
        assert {record.attempt for record in records.values()} == {1}


def test_nothing_acknowledged_is_lost_when_the_power_fails_under_load(scene, journal):
    for _ in range(4):
        with submitting(scene, journal) as load:
            load.goes_on(30)
            scene.broker.kill()
            # The last write reached the disk by half: nobody was told that it was done.
            newest = max(scene.broker.append_only.glob("*.incr.aof"))
            with newest.open("ab") as log:
                log.write(b"*3\r\n$3\r\nSET\r\n$5\r\nhal")
            scene.broker.start()

    records = check_invariants(journal, scene.job, ["one"], starts=1, within=60)
    assert {record.state for record in records.values()} == {"succeeded"}


def test_a_broker_that_lost_its_last_second_goes_on_with_what_it_has(redis7, journal):
    with scenes.scene(redis7.binary, fsync="everysec") as scene:
        scene.add("one")
        copy = scene.directory / "second-before"
        for _ in range(4):
            with submitting(scene, journal) as load:
                load.goes_on(15)
                shutil.copytree(scene.broker.append_only, copy)
                load.goes_on(15)
                scene.broker.kill()
                shutil.rmtree(scene.broker.append_only)
                copy.rename(scene.broker.append_only)
                scene.broker.start()
        lost = [id for id in journal.promises if not scene.store.connection.exists(job_key(id))]
        known = [id for id in journal.promises if id not in lost]
        assert len(lost) >= 15

        # Whoever waits for a job that is gone is told so.
        for id in lost:
            with pytest.raises(NoSuchJob):
                scene.job.fetch(id)
        # What is there comes to its end; what was rolled back may have run before.
        records = ended(scene.store, known, within=60)
        assert {record.state for record in records.values()} == {"succeeded"}
        for id in lost:
            del journal.promises[id]
        # Each of the four times may take back what became of a job.
        check_invariants(journal, scene.job, ["one"], starts=1 + 4)


@pytest.mark.parametrize("how", ["stopped", pytest.param("asleep", marks=pytest.mark.slow)])
def test_a_broker_that_hangs_longer_than_a_lease_expires_nothing(how, scene, journal):
    results = [journal.submit(scene.job, 9, lines=9) for _ in range(4)]
    for result in results:
        journal.started(result)

    if how == "stopped":
        with scene.broker.hung():
            until(lambda: len(journal.notes("tick", id=results[0].id)) > 60, within=20, what="6 s")
    else:
        with pytest.raises(redis.TimeoutError):
            scene.broker.connection.execute_command("DEBUG", "SLEEP", "6")

    records = check_invariants(journal, scene.job, ["one"], starts=1)
    assert {(record.attempt, record.losses) for record in records.values()} == {(1, 0)}
    probe(scene.job)


class Load:
    """Submits a short job again and again, as fast as it is answered."""

    def __init__(self) -> None:
        self.count = 0
        self.done = threading.Event()

    def goes_on(self, jobs: int) -> None:
        """Wait until that many more are acknowledged."""
        count = self.count + jobs
        until(lambda: self.count >= count, within=20, what=f"{jobs} more jobs")


@contextmanager
def submitting(scene, journal) -> Iterator[Load]:
    """Submit jobs for as long as a block lasts; what isn't acknowledged isn't promised."""
    load = Load()

    def submit() -> None:
        while not load.done.is_set():
            try:
                journal.submit(scene.job)
                load.count += 1
            except BrokerUnavailable:
                clock.sleep(0.05)

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield load
    finally:
        load.done.set()
        thread.join(10)


def job_key(id: str) -> str:
    return f"{{rq}}:job:{id}"
