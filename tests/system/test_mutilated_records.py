"""With records in Redis that make no sense, every command shows the others, and work goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relayq.model.jobs import JobState
from tests.waiting import until

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
ESCAPE = b"\x1b[31mred\x1b]0;title\x07"
#: What somebody left in a job's record: a field and its value, or no hash at all.
DAMAGE = {
    "aaaaaaaaaaa0": {"state": b"succeeded"},
    "aaaaaaaaaaa1": {"kind": b"run_command", "queue": b"any", "priority": b"5", "created": b"1"},
    "aaaaaaaaaaa2": {"state": b"queued", "created": b"soon", "attempt": b"one"},
    "aaaaaaaaaaa3": {"state": b"failed", "host": ESCAPE, "created": b"1e999", "note": ESCAPE},
    "aaaaaaaaaaa4": {"state": b"running", "progress": b"[1", "host": b"here", "attempt": b"\xff"},
    "aaaaaaaaaaa5": {"state": b"succeeded", "note": b"x" * 10_000_000},
    "aaaaaaaaaaa6": {"state": b"dreaming"},
    "aaaaaaaaaaa7": None,
}
READING = (
    *(
        ["ps"],
        ["ps", "-a"],
        ["ps", "--state", "failed"],
        ["ps", "--on", "here"],
    ),
    *(
        ["ps", "--filter", "name=good"],
        ["hosts"],
        ["hosts", "show", "here"],
        ["status"],
    ),
    *(["stats"], ["events"], ["failures"], ["review"], ["why", "good"]),
    *(["show", "good"], ["flow", "ls"], ["schedule", "ls"], ["agent", "ls"], ["worker", "status"]),
)


def relayq(*arguments: str):
    return subprocess.run(
        [sys.executable, "-m", "relayq", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=90,
    )


@pytest.fixture
def damaged(fleet):
    """A fleet with a worker, good jobs, and a bad record of every sort."""
    fleet.job.run("true", name="good").wait(30)
    store = fleet.relay.session().store
    raw, keys = store.connection, store.keys
    now = raw.time()[0]
    for id, fields in DAMAGE.items():
        if fields is None:
            raw.rpush(keys("job", id), "no record")
        else:
            raw.hset(keys("job", id), mapping=fields)
        state = (fields or {}).get("state", b"succeeded").decode()
        raw.zadd(keys("state", state if state in set(JobState) else "succeeded"), {id: now})
        raw.zadd(keys("ids"), {id: 0})
    raw.zadd(keys("queue", "any"), {"aaaaaaaaaaa2": 1, "aaaaaaaaaaa7": 0, b"\xff\xfe": 2})
    raw.sadd(keys("active", "here"), "aaaaaaaaaaa4", b"\xff")
    raw.hset(keys("host", "bad"), mapping={"facts": '{"labels": 5}', "install": "x", "seen": "1"})
    raw.zadd(keys("hosts"), {"bad": 1, b"\xff": 2, "list": 3})
    raw.rpush(keys("host", "list"), "no record")
    raw.hset(keys("flow", "bad"), mapping={"name": ESCAPE, "graph": "[1]"})
    raw.zadd(keys("flows"), {"bad": 1})
    raw.hset(keys("schedule", "bad"), mapping={"next": "never", "uid": "1"})
    raw.zadd(keys("schedules"), {"bad": 1, "gone": 2, b"\xff": 3})
    return fleet


def test_every_reading_command_shows_what_is_good_and_names_what_is_not(damaged):
    for arguments in READING:
        done = relayq(*arguments)
        said = done.stdout + done.stderr
        assert b"Traceback" not in said, said.decode(errors="replace")
        assert b"\x1b" not in said
        assert done.returncode in (0, 1), (arguments, said)
        as_json = relayq(*arguments, "--json")
        assert b"Traceback" not in as_json.stderr, as_json.stderr.decode()
        for line in [as_json.stdout] if arguments != ["events"] else as_json.stdout.splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(name))

    assert b"Traceback" not in relayq("top").stderr
    listed = relayq("ps", "-a")
    assert listed.returncode == 0
    assert b"good" in listed.stdout
    for id in DAMAGE:
        assert f"the record of {id} can't be read: " in listed.stderr.decode() or id in said_gone(
            damaged
        )
    assert b"the record of host bad can't be read: " in relayq("hosts").stderr


def said_gone(fleet) -> set[str]:
    """Return which of the bad records the worker has already thrown away."""
    store = fleet.relay.session().store
    return {id for id in DAMAGE if not store.connection.exists(store.keys("job", id))}


def test_what_cannot_be_read_can_be_forgotten_by_the_command_that_is_named(damaged):
    one = relayq("show", "aaaaaaaaaaa3")
    assert (one.returncode, one.stdout) == (125, b"")
    assert b"hint: relayq rm aaaaaaaaaaa3" in one.stderr

    assert relayq("rm", "aaaaaaaaaaa3", "aaaaaaaaaaa5", "aaaaaaaaaaa6").returncode == 0
    assert relayq("hosts", "rm", "bad").returncode == 0
    assert relayq("schedule", "rm", "bad").returncode == 0

    left = relayq("ps", "-a").stderr.decode()
    assert "aaaaaaaaaaa3" not in left
    assert "aaaaaaaaaaa6" not in left
    assert b"bad" not in relayq("hosts").stderr + relayq("schedule", "ls").stderr


def test_workers_go_on_and_a_new_one_registers(damaged):
    def runs() -> bool:
        return relayq("run", "--timeout", "20s", "echo well").stdout == b"well\n"

    assert runs()
    damaged.end_worker()
    damaged.start_worker()
    assert runs()
    before = damaged.pid_online()
    until(runs, within=30, what="a further job, after some ticks")
    assert damaged.pid_online() == before
    assert damaged.relay.job.run("echo again").get(30) == "again"
