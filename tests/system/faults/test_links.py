"""Rows 5 and 16 to 19: connections are cut, hosts are cut off, answers are lost, links are slow."""

from __future__ import annotations

import pytest

from relayq import clock
from relayq.model.jobs import JobState
from relayq.model.output import STDOUT, only
from tests.system.faults import scene as scenes
from tests.system.faults.journal import check_invariants, ended, probe
from tests.system.faults.proxy import REPLIES, REQUESTS
from tests.waiting import until

pytestmark = pytest.mark.system

LINES = 3000


@pytest.fixture
def pair(stage):
    """The module's scene with a second worker, `two`."""
    if "two" not in stage.hosts:
        stage.add("two")
    stage.repair()
    return stage


def test_clients_and_workers_outlive_the_cut_of_all_their_connections(pair, journal):
    killing = pair.broker.connection
    results = [journal.submit(pair.job, 6, lines=LINES, follow=True) for _ in range(4)]
    told = [result.logs(follow=True) for result in results]
    done = clock.boottime() + 6

    def kill_all() -> bool:
        for kind in ("normal", "pubsub"):
            killing.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        clock.sleep(0.5)
        return clock.boottime() > done

    until(kill_all, within=20, what="6 s of it")
    texts = [only(frames, STDOUT) for frames in told]

    # A claim whose answer was cut off never starts, and costs no more than an attempt's number.
    records = check_invariants(journal, pair.job, ["one", "two"], starts=1)
    assert {record.losses for record in records.values()} == {0}
    for result, text in zip(results, texts, strict=True):
        assert text == output_of(journal, records[result.id])


def test_a_partition_shorter_than_a_beat_takes_to_be_missed_shows_nothing(pair, journal):
    result = journal.submit(pair.job, 3, lines=LINES, host="one", follow=True)
    journal.started(result)

    with pair.hosts["one"].link.held():
        clock.sleep(0.7)

    check_invariants(journal, pair.job, ["one", "two"], starts=1)
    assert (result.record.attempt, result.record.losses) == (1, 0)
    assert pair.said == []


@pytest.mark.parametrize("on_lost", ["retry", "ask", "fail"])
def test_a_host_is_cut_off_for_longer_than_its_lease_and_verdict(on_lost, pair, journal):
    result = journal.submit(pair.job, gate=journal.gate, on_lost=on_lost)
    journal.started(result)
    first = pair.hosts[result.record.host]

    with first.link.held():
        if on_lost == "retry":
            until(lambda: journal.starts(result.id) == 2, within=20, what="a second attempt")
        else:
            until(lambda: result.record.reason == "lost", within=20, what="the verdict")
        # Alive and cut off: the first attempt goes on.
        now = clock.boottime()
        until(lambda: ran_since(journal, result, 1, now), what="the first attempt to go on")
    # It ends at first contact.
    until(lambda: not first.attempts(result.id), within=15, what="the first attempt to be gone")
    journal.gate.touch()

    records = check_invariants(journal, pair.job, ["one", "two"])
    record = records[result.id]
    if on_lost == "retry":
        assert (record.state, record.attempt, record.losses) == ("succeeded", 2, 1)
        assert record.host != first.name
    else:
        assert record.state is (JobState.NEEDS_HUMAN if on_lost == "ask" else JobState.FAILED)
        assert (record.attempt, journal.starts(result.id)) == (1, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_host_is_cut_off_for_two_minutes_at_the_real_times(redis7, journal):
    with scenes.scene(redis7.binary, **scenes.REAL) as scene:
        scene.add("one")
        scene.add("two")
        results = {
            policy: journal.submit(scene.job, 200, on_lost=policy, host="one", lines=LINES)
            for policy in ("retry", "ask", "fail")
        }
        for result in results.values():
            journal.started(result)

        with scene.hosts["one"].link.held():
            clock.sleep(120)

        records = check_invariants(journal, scene.job, ["one", "two"], within=400)
        states = {policy: records[result.id].state for policy, result in results.items()}
        assert states == {"retry": "succeeded", "ask": "needs_human", "fail": "failed"}


def test_a_result_that_comes_too_late_is_kept_beside_the_verdict(pair, journal):
    result = journal.submit(pair.job, 8, on_lost="fail")
    journal.started(result)
    host = pair.hosts[result.record.host]

    with host.link.held():
        until(lambda: result.record.state == "failed", within=20, what="the verdict")
        until(lambda: journal.notes("end", id=result.id), within=20, what="the job's own end")

    key = f"{{rq}}:late:{result.id}"
    until(lambda: pair.store.connection.exists(key), within=15, what="the late outcome")
    check_invariants_of_a_late_end(journal, pair)
    assert result.record.state == "failed"


@pytest.mark.parametrize("lost", [REPLIES, REQUESTS])
def test_answers_or_questions_get_lost_and_nothing_is_done_twice(lost, pair, journal):
    first = [journal.submit(pair.job, 2, lines=LINES) for _ in range(8)]
    for result in first:
        journal.started(result)

    for host in pair.hosts.values():
        host.link.lose(lost)
    # Claims, outcomes and beats are sent, and nobody learns whether they arrived.
    for _ in range(8):
        journal.submit(pair.job, 0.2, lines=LINES)
    until(lambda: len(journal.notes("end")) >= 8, within=15, what="the end of those that ran")
    for host in pair.hosts.values():
        host.link.heal()

    records = check_invariants(journal, pair.job, ["one", "two"], starts=1)
    assert {record.state for record in records.values()} == {"succeeded"}
    assert {records[result.id].attempt for result in first} == {1}


def test_a_submit_whose_answer_is_lost_is_stored_once(pair, journal):
    pair.link.lose(REPLIES)
    done = pair.relayq("submit", "-q", "--name", "unheard", "true")
    pair.link.heal()

    assert done.returncode == 125
    jobs = pair.job.select([], filters={"name": "unheard"})
    assert len(jobs) <= 1
    for one in jobs:
        one.get(timeout=15)


def test_a_slow_and_lossy_link_is_slow_and_nothing_else(pair, journal):
    for host in pair.hosts.values():
        host.link.slow(0.2, 0.1)
        host.link.cut_each(2.5)
    results = [
        journal.submit(pair.far.job, 2, lines=LINES, follow=True, on_lost=policy)
        for policy in ("retry", "ask", "fail")
    ]
    results += [journal.submit(pair.far.job, 0.1) for _ in range(12)]
    pair.link.slow(0.2, 0.1)
    pair.link.cut_each(2.5)
    texts = [only(result.logs(follow=True), STDOUT) for result in results[:3]]
    ended(pair.store, journal.promises, within=60)
    pair.link.heal()
    for host in pair.hosts.values():
        host.link.heal()

    records = check_invariants(journal, pair.job, ["one", "two"], starts=1)
    for result, text in zip(results, texts, strict=False):
        assert text == output_of(journal, records[result.id])


def test_connections_that_break_in_the_middle_of_an_answer_cost_nothing(pair, journal):
    for link in (pair.link, *(host.link for host in pair.hosts.values())):
        link.limit(300_000)
    results = [journal.submit(pair.far.job, 2, lines=20 * LINES, follow=True) for _ in range(3)]
    texts = [only(result.logs(follow=True), STDOUT) for result in results]
    for link in (pair.link, *(host.link for host in pair.hosts.values())):
        assert link.cut_off > 0
        link.heal()

    records = check_invariants(journal, pair.job, ["one", "two"], starts=1)
    for result, text in zip(results, texts, strict=True):
        assert text == output_of(journal, records[result.id])


def output_of(journal, record) -> bytes:
    """Return what a job's last attempt wrote."""
    return (journal.directory / f"{record.id}.{record.attempt}.out").read_bytes()


def ran_since(journal, result, attempt: int, instant: float) -> bool:
    """Tell whether this attempt was seen running after an instant."""
    notes = journal.notes("tick", id=result.id)
    return any(note.attempt == attempt and note.at > instant for note in notes)


def check_invariants_of_a_late_end(journal, scene) -> None:
    """Check that a job which came to its end too late did so once, and hurt nobody."""
    assert all(journal.starts(id) == 1 for id in journal.promises)
    probe(scene.job, ["one", "two"])
