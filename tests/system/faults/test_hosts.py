"""Rows 9, 10 and 24: a host dies, reboots, is upgraded, has a twin, or isn't who it says."""

from __future__ import annotations

import secrets
import shutil

import pytest

from relayq import clock
from relayq.errors import BadSignature, Conflict
from relayq.model.hosts import queues_of
from relayq.model.jobs import ON_LOST
from relayq.signing import Signer
from relayq.store.leases import Claim, Registration
from tests.system.faults import scene as scenes
from tests.system.faults.blows import boot, can_retry, crash, until_state
from tests.system.faults.journal import check_invariants
from tests.system.faults.scene import ROOT, SCALED, Host, Scene
from tests.waiting import until

pytestmark = pytest.mark.system

HOSTS = ("one", "two")


# A host that is gone


def test_what_a_dead_host_ran_goes_by_its_policy(scene, journal, one, running):
    cancelled = journal.submit(scene.job, gate=journal.gate, host="one")
    journal.started(cancelled)
    crash(one)
    journal.cancel(cancelled)

    until_state(running["ask"], "needs_human")
    until_state(running["fail"], "failed")
    until_state(cancelled, "cancelled")
    until(lambda: running["retry"].host == "two", within=20, what="the other host to take it")
    # It may still run, for all that anybody knows.
    with pytest.raises(Conflict, match="one"):
        running["ask"].retry()
    one.start()
    until(lambda: can_retry(running["ask"]), within=15, what="the host to say that it is gone")
    journal.started(running["retry"])
    journal.gate.touch()

    records = check_invariants(journal, scene.job, ["one", "two"], starts=2)
    assert records[running["retry"].id].attempt == 2
    assert records[running["fail"].id].reason == "lost"
    assert journal.starts(cancelled.id) == 1


@pytest.mark.root
@pytest.mark.parametrize("spool", ["kept", "lost"])
def test_a_reboot_is_noticed_at_once(redis7, journal, tmp_path, spool):
    # With these times a verdict that waits for the lease comes far too late.
    with scenes.scene(redis7.binary, length=60, lost_min=60, lost_max=60) as scene:
        one = scene.add("one")
        results = {word: journal.submit(scene.job, 3, on_lost=word) for word in ON_LOST}
        for result in results.values():
            journal.started(result)

        crash(one)
        if spool == "lost":
            shutil.rmtree(one.config.spool)
        boot(one, tmp_path / "boot_id")

        until_state(results["fail"], "failed", within=10)
        until_state(results["ask"], "needs_human", within=10)
        results["ask"].retry()
        check_invariants(journal, scene.job, ["one"], starts=2)


# A host whose worker is down, or another one


def test_a_host_that_is_down_obeys_a_cancel_when_it_is_back(scene, journal, one):
    result = journal.submit(scene.job, gate=journal.gate, host="one")
    journal.started(result)
    one.end()

    queued = journal.submit(scene.job, host="one")
    assert journal.cancel(queued) == "cancelled"
    assert journal.cancel(result) == "asked"
    one.start()

    records = check_invariants(journal, scene.job, ["one"], starts=1)
    assert {record.state for record in records.values()} == {"cancelled"}
    assert not journal.starts(queued.id)


def test_workers_are_upgraded_under_load_and_no_job_notices(scene, journal, one, two, tmp_path):
    newer = tmp_path / "newer"
    shutil.copytree(ROOT / "relayq", newer / "relayq")
    (newer / "relayq" / "version.py").write_text('"""Newer."""\n\n__version__ = "9.9.9"\n')
    long = [journal.submit(scene.job, 6, lines=100, on_lost=word) for word in ON_LOST]
    for host in (one, two, one):
        for _ in range(20):
            journal.submit(scene.job, 0.2, lines=10, on_lost="ask")
        host.end()
        host.start(PYTHONPATH=str(newer))

    records = check_invariants(journal, scene.job, ["one", "two"], starts=1, within=60)
    assert {record.state for record in records.values()} == {"succeeded"}
    assert {records[result.id].attempt for result in long} == {1}
    versions = {host.version for host in scene.store.hosts.list(online_within=60)}
    assert versions == {"9.9.9"}


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_workers_clock_that_jumps_expires_nothing(scene, journal, one, tmp_path, step):
    (tmp_path / "step").write_text("0")
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nreal = time.time\n"
        f"time.time = lambda: real() + float(open({str(tmp_path / 'step')!r}).read() or 0)\n"
    )
    one.end()
    one.start(PYTHONPATH=f"{tmp_path}:{ROOT}")
    before = journal.submit(scene.job, 3, host="one", on_lost="fail")
    journal.started(before)
    (tmp_path / "step").write_text(str(step))
    after = journal.submit(scene.job, 1, host="one", on_lost="fail", timeout=30)

    records = check_invariants(journal, scene.job, ["one", "two"], starts=1)
    for result in (before, after):
        record = records[result.id]
        assert record.state == "succeeded"
        assert record.duration is not None
        assert 0 <= record.duration < 30
    one.end()


def test_a_claim_whose_answer_was_lost_goes_back_and_counts_for_nothing(scene, journal, one, two):
    for host in (one, two):
        host.end()
    results = [journal.submit(scene.job), journal.submit(scene.job)]
    # As the broker has it: the host claimed, and is alive, and never speaks of these attempts.
    who = Registration("one", install_of(one), clock.boot_id())
    scene.store.hosts.register(
        who, lease=4, key_id=signer_of(scene).key_id, slots=2, version="0", facts={}
    )
    for _ in results:
        claim = scene.store.leases.claim(
            who, queues_of("one"), uid=secrets.token_hex(6), lease=SCALED["LENGTH"]
        )
        assert isinstance(claim, Claim)
    assert journal.cancel(results[1]) == "asked"
    two.start()

    until_state(results[0], "succeeded")
    until_state(results[1], "cancelled")
    one.start()
    records = check_invariants(journal, scene.job, ["one", "two"], starts=1)
    assert (records[results[0].id].attempt, records[results[0].id].losses) == (2, 0)
    assert not journal.starts(results[1].id)


def test_a_broker_without_room_is_asked_again_at_the_workers_own_pace(scene, journal, one, two):
    for host in (one, two):
        host.end()
    journal.submit(scene.job, host="one")
    before = len(one.log)
    scene.broker.set(maxmemory=1)
    one.start()

    until(lambda: one.log[before:].count("no new work") >= 3, within=20, what="three refusals")
    assert one.log[before:].count("registered one") == 1
    scene.broker.set(maxmemory=0)
    check_invariants(journal, scene.job, ["one"], starts=1)


def test_a_second_machine_of_one_name_takes_nothing_until_the_first_is_gone(scene, journal, one):
    clone = scene.add("clone", start=False, RELAYQ_WORKER__NAME="one")
    stranger = scene.add("stranger", start=False)
    (stranger.home / "fleet.key").write_text(f"{secrets.token_hex(32)}\n")
    try:
        for host in (clone, stranger):
            host.start(wait=False)
        until(lambda: "already called one" in clone.log, within=20, what="the clone's refusal")
        until(lambda: "fleet key" in stranger.log, within=20, what="the stranger's refusal")
        results = [journal.submit(scene.job, 0.3, host="one") for _ in range(8)]
        for result in results:
            until_state(result, "succeeded")
        running = journal.submit(scene.job, 3, host="one")
        journal.started(running)
        assert not clone.attempts()
        assert not stranger.attempts()

        crash(one)
        until(clone.is_online, within=20, what="the clone to have the name")
        until_state(running, "succeeded")
        assert not stranger.attempts()
        check_invariants(journal, scene.job, starts=2)
    finally:
        for host in (clone, stranger):
            del scene.hosts[host.name]
            host.close()


# Forgeries


def test_what_was_forged_in_redis_is_neither_run_nor_believed(scene, journal, one, two, tmp_path):
    redis = scene.broker.connection
    done = journal.submit(scene.job)
    until_state(done, "succeeded")
    other = journal.submit(scene.job)
    until_state(other, "succeeded")
    for host in (one, two):
        host.end()
    forged = [scene.job.run(f"touch {tmp_path}/ran") for _ in range(4)]
    texts = [
        Signer(b"x" * 32).sign_spec(forged[0].record.spec),
        redis.get(f"{{rq}}:spec:{done.id}"),
        redis.get(f"{{rq}}:spec:{forged[2].id}").replace(b"touch", b"rm -f"),
        b"\xff garbage",
    ]
    for result, text in zip(forged, texts, strict=True):
        redis.set(f"{{rq}}:spec:{result.id}", text)
    for host in (one, two):
        host.start()

    # Another key's may be this machine's mistake, so that waits; the rest is final.
    until_state(forged[0], "scheduled")
    for result in forged[1:]:
        until(lambda result=result: state_of(scene, result.id) == "failed", what="the refusal")
    assert not (tmp_path / "ran").exists()
    redis.set(f"{{rq}}:outcome:{done.id}", redis.get(f"{{rq}}:outcome:{other.id}"))
    with pytest.raises(BadSignature):
        scene.job.fetch(done.id).get(timeout=5)
    redis.set(f"{{rq}}:outcome:{other.id}", b"0 0 {}")
    with pytest.raises(BadSignature):
        scene.job.fetch(other.id).get(timeout=5)
    forged[0].cancel()
    scene.store.jobs.forget([result.id for result in forged])


def state_of(scene: Scene, id: str) -> str:
    return scene.store.connection.hget(f"{{rq}}:job:{id}", "state").decode()


def install_of(host: Host) -> str:
    return (host.home / "install").read_text().strip()


def signer_of(scene: Scene) -> Signer:
    return scene.relay.session().signer
