"""Rows 6, 14 and 31: nudges that are gone, were never sent, come twice, late or broken."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys

import pytest

from relayq import clock
from relayq.dispatch import message
from relayq.model.jobs import new_id
from tests.system.faults.journal import check_invariants, probe
from tests.system.faults.scene import ROOT
from tests.waiting import until

pytestmark = pytest.mark.system

QUEUES = ("any", "host.one")
#: What may be in a list that anybody with the password can write to.
GARBAGE = [
    b"",
    b"garbage",
    b"\xff\xfe\x00",
    b"{}",
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b'{"body": {}}',
    b'{"headers": null, "properties": null, "body": null}',
    b'{"body": "W10=", "headers": {"task": "relayq.run_command"}}',
    b'{"version": 9, "what": "nudge", "job": {"id": 7}}',
    b"[" * 5000,
    b"x" * 3_000_000,
]

SUBMITTER = """
import sys
from relayq import Relay
relay = Relay()
while True:
    print(relay.job.run(sys.argv[1:]).id, flush=True)
"""


def key(queue: str) -> str:
    return f"{{rq}}:k:{queue}"


def test_jobs_run_though_all_nudges_were_deleted(scene, journal):
    host = scene.hosts["one"]
    host.end()
    results = [journal.submit(scene.job, host=name) for name in (None, "one") * 5]
    scene.store.connection.delete(*map(key, QUEUES))

    # So rarely that the first look finds nothing.
    host.start(RELAYQ_LEASE__PULL="3")
    late = journal.submit(scene.job)
    scene.store.connection.delete(*map(key, QUEUES))

    check_invariants(journal, scene.job, ["one"], within=15, starts=1)
    assert {result.record.attempt for result in [*results, late]} == {1}


def test_what_a_killed_client_had_submitted_runs_whole(scene, journal):
    before = every_id(scene)
    for number in range(3):
        env = scene.environ(scene.home, scene.link)
        argv = [sys.executable, "-c", SUBMITTER, *journal.command()]
        client = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        told = [client.stdout.readline().strip() for _ in range(5)]
        # Somewhere in the middle of the next submit.
        clock.sleep(random.Random(number).random() / 100)
        client.send_signal(signal.SIGKILL)
        rest, _ = client.communicate()
        for id in [*told, *rest.split()]:
            journal.promise(id)
    # What arrived and wasn't answered is a job like any other.
    for id in every_id(scene) - before:
        journal.promise(id)

    records = check_invariants(journal, scene.job, ["one"], within=60)
    assert {record.state for record in records.values()} == {"succeeded"}


def test_nudges_that_come_twice_late_broken_or_in_disorder_change_nothing(scene, journal):
    connection, order = scene.store.connection, random.Random(31)
    over = [journal.submit(scene.job) for _ in range(5)]
    for result in over:
        result.wait(15)
    long = journal.submit(scene.job, 3)
    journal.started(long)
    queued = [journal.submit(scene.job, 0.05) for _ in range(20)]

    ids = [result.id for result in [*over, long, *queued]]
    nudges = [message(id, "run_command", "any").encode() for id in [*ids, *ids, new_id()]]
    nudges += [message(ids[0], kind, "any").encode() for kind in ("no_such_kind", "", "a.b")]
    nudges += GARBAGE
    stale = json.loads(nudges[0])
    for wrong in ({"headers": {}}, {"properties": {}}, {"content-type": "application/x-python"}):
        nudges.append(json.dumps(stale | wrong).encode())
    order.shuffle(nudges)
    for nudge in nudges:
        connection.lpush(key(order.choice(QUEUES)), nudge)

    check_invariants(journal, scene.job, ["one"], starts=1)
    until(lambda: not any(connection.llen(key(q)) for q in QUEUES), within=20, what="no nudge left")
    assert scene.hosts["one"].is_alive
    probe(scene.job, ["one"])


def test_a_queue_that_is_no_list_stops_nudges_and_no_worker(scene, journal):
    connection = scene.store.connection
    connection.delete(key("any"))
    connection.set(key("any"), "not a list", ex=3)

    until(lambda: not connection.exists(key("any")), within=10, what="it to be over")

    journal.submit(scene.job)
    check_invariants(journal, scene.job, ["one"], within=10, starts=1)
    assert scene.hosts["one"].is_alive


def every_id(scene) -> set[str]:
    """Return the ids of all jobs that the broker knows."""
    return {id.decode() for id in scene.store.connection.zrange("{rq}:ids", 0, -1)}
