"""Row 12, and the ways in which two copies of a job could come to run at a time.

The protocol's model found them; each is a test here, with real shims. A job of each policy runs on
one host, that host hangs, sleeps, dies or is cut off, and the other takes what it may.
"""

from __future__ import annotations

import signal

import pytest

from relayq import clock
from relayq.errors import Conflict
from relayq.model.jobs import ON_LOST
from tests.system.faults import scene as scenes
from tests.system.faults.blows import (
    asleep,
    can_retry,
    everything_of,
    frozen,
    stirred,
    taken_over,
    until_state,
)
from tests.system.faults.journal import check_invariants
from tests.system.faults.scene import SCALED
from tests.waiting import until

pytestmark = pytest.mark.system

HOSTS = ("one", "two")


# A host that hangs


def test_a_worker_that_hangs_for_a_moment_costs_nothing(scene, journal, one, running):
    with asleep(one.pid):
        until(lambda: frozen(one, running["retry"]), within=10, what="the job to be frozen")
    until(lambda: not frozen(one, running["retry"]), within=10, what="the job to go on")
    journal.gate.touch()

    records = check_invariants(journal, scene.job, ["one", "two"], starts=1)
    assert {record.attempt for record in records.values()} == {1}


def test_a_worker_that_hangs_past_the_verdict_runs_nothing_twice(scene, journal, one, running):
    with asleep(one.pid):
        journal.cancel(running["fail"])
        until_state(running["ask"], "needs_human")
        until_state(running["fail"], "cancelled")
        until(lambda: taken_over(journal, running["retry"]), within=20, what="attempt 2")
        with pytest.raises(Conflict, match="one"):
            running["ask"].retry()
        end = clock.boottime()
    until(lambda: can_retry(running["ask"]), within=15, what="the host to end its copy")
    journal.gate.touch()

    check_invariants(journal, scene.job, ["one", "two"], starts=2)
    assert not journal.overlaps(running["retry"].id)
    assert not stirred(journal, running["retry"], since=end)
    assert not stirred(journal, running["fail"], since=end)


def test_an_answer_that_is_read_too_late_thaws_nothing(scene, journal, one, running):
    scene.broker.hang()
    beat = clock.boottime() + 2 * SCALED["BEAT"]
    until(lambda: clock.boottime() > beat, what="a beat to be on its way")
    with asleep(one.pid):
        scene.broker.resume()
        until(lambda: taken_over(journal, running["retry"]), within=25, what="attempt 2")
        end = clock.boottime()

    until_state(running["ask"], "needs_human")
    until(lambda: can_retry(running["ask"]), within=15, what="the host to end its copy")
    journal.gate.touch()
    check_invariants(journal, scene.job, ["one", "two"], starts=2)
    assert not journal.overlaps(running["retry"].id)
    assert not stirred(journal, running["retry"], since=end)


def test_two_deaths_in_a_row_give_no_second_permit(scene, journal, one, running):
    before = one.log
    one.end(signal.SIGKILL)
    death = clock.boottime()
    one.link.refuse()
    one.start(wait=False)
    seconds = SCALED["PERMIT"] + 1.5
    until(lambda: clock.boottime() > death + seconds, within=15, what="the second worker's time")
    assert "adopted" in one.log[len(before) :]
    one.end(signal.SIGKILL)

    until(lambda: taken_over(journal, running["retry"]), within=20, what="attempt 2")
    last = max(note.at for note in journal.notes("tick") if note.attempt == 1)
    assert last < death + SCALED["PERMIT"] + 1
    one.link.heal()
    one.start()
    until_state(running["ask"], "needs_human")
    until(lambda: can_retry(running["ask"]), within=15, what="the host to end its copy")
    journal.gate.touch()

    check_invariants(journal, scene.job, ["one", "two"], starts=2)
    assert not journal.overlaps(running["retry"].id)


def test_a_death_behind_a_cut_freezes_what_ran_on(scene, journal, one, running):
    one.link.refuse()
    cut = clock.boottime()
    until(lambda: clock.boottime() > cut + 1.0, what="a beat without an answer")
    one.end(signal.SIGKILL)
    death = clock.boottime()

    until(lambda: taken_over(journal, running["retry"]), within=20, what="attempt 2")
    last = max(note.at for note in journal.notes("tick") if note.attempt == 1)
    assert last < death + SCALED["EXTEND"] + 1
    one.link.heal()
    one.start()
    until_state(running["ask"], "needs_human")
    until(lambda: can_retry(running["ask"]), within=15, what="the host to end its copy")
    journal.gate.touch()

    check_invariants(journal, scene.job, ["one", "two"], starts=2)
    assert not journal.overlaps(running["retry"].id)


def test_a_host_that_was_cut_off_ends_its_own_copy_before_it_starts_the_next(scene, journal, one):
    deaf = ["sh", "-c", """trap '' TERM; exec "$@" """, "sh"]
    result = scene.job.run([*deaf, *journal.command(gate=journal.gate)], host="one")
    journal.promise(result.id)
    journal.started(result)

    one.link.refuse()
    until_state(result, "queued")
    one.link.heal()
    until(lambda: journal.starts(result.id) == 2, within=20, what="attempt 2")
    journal.gate.touch()

    check_invariants(journal, scene.job, ["one"], starts=2)
    assert not journal.overlaps(result.id)


# A host that sleeps


def test_a_laptop_that_slept_goes_on_where_it_was(scene, journal, one, running):
    with asleep(*everything_of(one)):
        until_state(running["retry"], "lost")
    until_state(running["retry"], "running")
    journal.gate.touch()

    records = check_invariants(journal, scene.job, ["one", "two"], starts=1)
    assert {record.attempt for record in records.values()} == {1}


def test_a_laptop_that_slept_for_long_ends_what_others_took_over(scene, journal, one, running):
    waiting = journal.submit(scene.job, host="one", priority=1)
    with asleep(*everything_of(one)):
        assert journal.cancel(running["fail"]) == "asked"
        # A cancel reaches a job also while its host can't hear of it.
        until_state(running["fail"], "cancelled")
        until_state(running["ask"], "needs_human")
        until(lambda: taken_over(journal, running["retry"]), within=20, what="attempt 2")
        journal.cancel(waiting)
        with pytest.raises(Conflict, match="one"):
            running["ask"].retry()
        end = clock.boottime()
    until(lambda: can_retry(running["ask"]), within=15, what="the host to end its copy")
    journal.gate.touch()

    check_invariants(journal, scene.job, ["one", "two"], starts=2)
    # No clock stops a process before the machine sleeps: on waking it runs until it is looked at.
    assert sum(seconds for *_, seconds in journal.overlaps(running["retry"].id)) < 10
    for word in ("retry", "fail"):
        late = [n for n in stirred(journal, running[word], since=end) if n.attempt == 1]
        assert not late or late[-1].at - late[0].at < 1.0


# At the real times


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seconds", [10, 120, 700])
def test_a_worker_that_hangs_at_the_real_times(redis7, journal, seconds):
    with scenes.scene(redis7.binary, **scenes.REAL) as scene:
        one = scene.add("one")
        results = {
            word: journal.submit(scene.job, gate=journal.gate, on_lost=word) for word in ON_LOST
        }
        for result in results.values():
            journal.started(result)
        two = scene.add("two")
        began = clock.boottime()
        with asleep(one.pid):
            until(lambda: clock.boottime() - began > seconds, within=seconds + 5, what="the hang")
            end = clock.boottime()
        if seconds > 100:
            assert results["retry"].host == two.name
            assert results["ask"].state == "needs_human"
            until(lambda: can_retry(results["ask"]), within=60, what="the host to end its copy")
        journal.gate.touch()

        check_invariants(journal, scene.job, ["one", "two"], starts=2, within=120)
        assert not journal.overlaps(results["retry"].id)
        if seconds > 100:
            assert not stirred(journal, results["retry"], since=end)
