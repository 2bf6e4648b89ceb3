"""Rows 29 and 33: a burst from many clients, and any number of reapers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from relayq.reaper import Reaper
from tests.system.faults.journal import check_invariants, ended, probe
from tests.waiting import until

pytestmark = pytest.mark.system

CLIENTS = 8
#: Submits its jobs in batches of 25 and one by one, prints each acknowledged id.
CLIENT = """
import sys
from relayq import Relay
relay, count, command = Relay(), int(sys.argv[1]), sys.argv[2]
done = 0
while done < count:
    if done % 50:
        results = [relay.job.run(command)]
    else:
        results = relay.job.submit_many([command] * min(25, count - done))
    for result in results:
        print(result.id, flush=True)
    done += len(results)
"""


def burst(scene, journal, count: int) -> None:
    """Submit that many jobs from several processes, and check what became of them."""
    ran = journal.directory / "ran"
    env = scene.environ(scene.home, scene.link)
    command = f"echo $RELAYQ_JOB_ID >> {ran}"
    argv = [sys.executable, "-c", CLIENT, str(count // CLIENTS), command]
    clients = [
        subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)
    ]
    ids = [id for client in clients for id in client.communicate(timeout=300)[0].split()]
    assert [client.returncode for client in clients] == [0] * CLIENTS
    assert len(set(ids)) == count

    records = ended(scene.store, ids, within=900)

    assert {record.state for record in records.values()} == {"succeeded"}
    assert sorted(ran.read_text().split()) == sorted(ids)
    nudges = "{rq}:k:any"
    until(lambda: not scene.store.connection.llen(nudges), within=20, what="no nudge to be left")
    check_invariants(journal, scene.job, scene.hosts)


def test_a_burst_of_jobs_from_eight_clients_comes_to_its_end(own_scene, journal):
    for name in ("one", "two"):
        own_scene.add(name, slots=4)
    burst(own_scene, journal, int(psutil.Process().environ().get("RELAYQ_BURST", "800")))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_burst_of_10000_jobs_comes_to_its_end(own_scene, journal):
    for name in ("one", "two"):
        own_scene.add(name, slots=4)
    burst(own_scene, journal, 10_000)


def test_many_reapers_and_one_that_was_stopped_in_its_work_are_harmless(own_scene, journal):
    one, two = own_scene.add("one"), own_scene.add("two")
    jobs = [journal.submit(own_scene.job, 0.3) for _ in range(20)]
    jobs += [journal.submit(own_scene.job, 4, on_lost=word) for word in ("retry", "ask", "fail")]
    for result in jobs[-3:]:
        journal.started(result)
    stopped = threading.Event()
    reapers = [threading.Thread(target=reap, args=(own_scene, stopped)) for _ in range(6)]
    for reaper in reapers:
        reaper.start()

    try:
        hung = next(host for host in (one, two) if host.name == jobs[-3].record.host)
        os.kill(hung.pid, signal.SIGSTOP)
        until(lambda: journal.starts(jobs[-3].id) == 2, within=20, what="the verdict on a host")
        os.kill(hung.pid, signal.SIGCONT)
        records = check_invariants(journal, own_scene.job, ["one", "two"])
    finally:
        stopped.set()
        for reaper in reapers:
            reaper.join(10)

    assert all(record.losses <= 1 for record in records.values())
    probe(own_scene.job, ["one", "two"])


def reap(scene, stopped: threading.Event) -> None:
    """Be one more reaper, and an eager one."""
    reaper = Reaper(scene.hosts["one"].config, scene.store, scene.relay.session().signer)
    while not stopped.wait(0.02):
        reaper.tick()
