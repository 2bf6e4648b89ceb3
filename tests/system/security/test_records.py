"""What lies in Redis beside the messages: specs, inputs, checkpoints, control lists, outcomes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from relayq.dispatch import TEMPLATE
from relayq.errors import BadSignature
from relayq.model.jobs import Spec, new_id
from relayq.store.inputs import InputPiece
from relayq.store.jobs import Submission
from tests.waiting import until

pytestmark = pytest.mark.system


def put(attacker, spec: Spec, signed: bytes) -> str:
    """Store a job and nudge the workers, as relayq's own submit does."""
    key_id = attacker.connection.hget(attacker.key("meta"), "key_id").decode()
    attacker.store.jobs.submit([Submission(spec, signed)], template=TEMPLATE, key_id=key_id)
    return spec.id


def ended(attacker, id: str, *, within: float = 20) -> tuple[Any, Any]:
    """Return the state in which a job ends, and why."""
    record = attacker.fleet.job.fetch(id).wait(within)
    return record.state, record.reason


def captured(attacker, id: str) -> bytes:
    """Return what the fleet has signed for a job, which everybody can read."""
    return attacker.connection.get(attacker.key("spec", id))


def queue_again(attacker, id: str, queue: str = "any") -> None:
    """Make a job's record that of one that waits, whatever it was."""
    job = attacker.key("job", id)
    attacker.connection.hset(job, mapping={"state": "queued", "queue": queue, "priority": "5"})
    attacker.connection.hdel(job, "cancel", "finished", "reason", "host", "uid")
    for state in ("succeeded", "failed", "cancelled", "running"):
        attacker.connection.zrem(attacker.key("state", state), id)
    attacker.connection.zadd(attacker.key("state", "queued"), {id: 1})
    attacker.connection.zadd(attacker.key("queue", queue), {id: 0})


def test_a_forged_spec_is_refused(attacker):
    spec = Spec(new_id(), "run_command", {"cmd": attacker.bait})
    other = Spec(new_id(), "run_command", {"cmd": attacker.bait})
    good = captured(attacker, attacker.fleet.job.run("true").id)
    body = json.dumps(other.as_dict()).encode()

    # Signed with a key of the attacker's; with none; with a MAC that was seen elsewhere.
    put(attacker, spec, attacker.signer.sign_spec(spec))
    # Another machine might have that key.
    until(
        lambda: attacker.fleet.job.fetch(spec.id).record.state == "scheduled",
        within=20,
        what="the host to give it back",
    )
    attacker.fleet.job.fetch(spec.id).cancel()
    key_id, mac, _ = good.split(b" ", 2)
    for signed in (b"{}", b"", b" ".join((key_id, b"00", body)), b" ".join((key_id, mac, body))):
        forged = replace(other, id=new_id())
        state, reason = ended(attacker, put(attacker, forged, signed))
        assert (state, reason) == ("failed", "refused")
    attacker.got_nothing()


def test_a_captured_spec_runs_under_no_other_id_and_unchanged_only(attacker, tmp_path):
    ran = attacker.fleet.job.run(f"echo ran >> {tmp_path}/ran")
    ran.wait(20)
    signed = captured(attacker, ran.id)
    id = new_id()
    spec = Spec(id, "run_command", {"cmd": "true"})

    for forged in (signed, signed.replace(ran.id.encode(), id.encode())):
        assert ended(attacker, put(attacker, replace(spec, id=new_id()), forged))[1] == "refused"

    assert (tmp_path / "ran").read_text() == "ran\n"
    attacker.got_nothing()


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_job_that_has_run_is_not_run_again_by_replaying_it(attacker, tmp_path, forgotten):
    ran = attacker.fleet.job.run(f"echo ran >> {tmp_path}/ran")
    assert ran.wait(20).state == "succeeded"
    signed = captured(attacker, ran.id)

    if forgotten:
        attacker.store.jobs.forget([ran.id])
        put(attacker, Spec(ran.id, "run_command", {"cmd": "true"}), signed)
    else:
        queue_again(attacker, ran.id)

    until(
        lambda: attacker.store.jobs.fetch(ran.id).state.is_final,
        within=20,
        what=lambda: str(attacker.store.jobs.fetch(ran.id)),
    )
    assert (tmp_path / "ran").read_text() == "ran\n"
    attacker.got_nothing()


def test_a_job_for_one_host_runs_on_no_other(attacker, ghost_job):
    attacker.connection.zrem(attacker.key("queue", "host.ghost"), ghost_job.id)
    queue_again(attacker, ghost_job.id, "host.here")

    assert ended(attacker, ghost_job.id) == ("failed", "refused")
    attacker.got_nothing()


def test_nobody_types_into_a_job_who_has_not_the_key(attacker):
    shell = attacker.fleet.job.run("sh", feed=True)
    forged = InputPiece(0, f"{attacker.bait}\n".encode())
    other = attacker.fleet.job.run("true")
    captured_elsewhere = attacker.signer.sign_note(f"input {other.id}", b"")

    attacker.store.inputs.send(shell.id, forged)
    attacker.store.inputs.send(shell.id, replace(forged, signature=captured_elsewhere))
    attacker.connection.xadd(attacker.key("input", shell.id), {"p": 0, "d": attacker.bait})
    typed = iter([b"echo typed\n", b""])
    shell.feed(lambda: next(typed))

    assert shell.get(timeout=20) == "typed"
    attacker.got_nothing()


def test_what_was_typed_once_is_no_use_elsewhere(attacker):
    first = attacker.fleet.job.run("cat", feed=True, host="ghost", wait_for_host=True)
    typed = iter([f"{attacker.bait}\n".encode(), b""])
    first.feed(lambda: next(typed))
    entries = attacker.connection.xrange(attacker.key("input", first.id))
    first.cancel()

    shell = attacker.fleet.job.run("sh", feed=True)
    for _, fields in entries:
        attacker.connection.xadd(attacker.key("input", shell.id), fields)
    own = iter([b"echo own\n", b""])
    shell.feed(lambda: next(own))

    assert shell.get(timeout=20) == "own"
    attacker.got_nothing()


def test_a_checkpoint_that_no_worker_left_is_given_to_nobody(attacker):
    script = (
        '[ "$RELAYQ_ATTEMPT" = 1 ] && { echo first > $RELAYQ_CHECKPOINT; exit 1; }; '
        ". $RELAYQ_CHECKPOINT; echo went on"
    )
    job = attacker.fleet.job.run(script, retries=1, backoff="30s..30s")
    until(lambda: job.record.state == "scheduled", within=20, what="the first attempt to end")
    for content in (attacker.bait.encode(), attacker.signer.sign_note(f"checkpoint {job.id}", b"")):
        attacker.connection.set(attacker.key("checkpoint", job.id), content)
    attacker.connection.set(attacker.key("checkpoint", job.id), f"{attacker.bait}\n")
    attacker.connection.zadd(attacker.key("state", "scheduled"), {job.id: 0})

    job.wait(30)

    attacker.got_nothing()


CONTROL = [
    b"garbage",
    b"[]",
    b'"wake"',
    b"{}",
    b'{"op": "no such"}',
    b'{"op": "magic", "mac": "; touch /tmp/x"}',
    b'{"op": "magic", "mac": "zz"}',
    b'{"op": "follow", "job": "*", "reply": "evil"}',
    b'{"op": "follow", "job": "../../../etc", "reply": "evil", "position": "x"}',
    b'{"op": "follow", "job": "../../../etc", "reply": "evil", "attempt": "*"}',
    b'{"op": "cancel", "job": "../../.."}',
    b'{"op": "answer", "job": "*"}',
    b'{"op": "wake", "queue": 3}',
    b"[" * 100_000,
]


def test_no_control_message_ends_a_worker_or_has_it_run_anything(attacker):
    attacker.connection.rpush(attacker.key("control", "here"), *CONTROL)

    until(
        lambda: not attacker.connection.exists(attacker.key("control", "here")),
        within=20,
        what="all of it to be taken",
    )
    attacker.got_nothing()
    assert attacker.fleet.worker.poll() is None
    # It still hears a real one.
    long = attacker.fleet.job.run("sleep 60")
    until(lambda: long.record.state == "running", within=20, what="a job to run")
    long.cancel()
    assert long.wait(20).state == "cancelled"


def test_an_id_leads_to_no_other_directory(attacker, tmp_path):
    id = f"../../../../../../../../{str(tmp_path)[1:]}/evil"
    spec = Spec(id, "run_command", {"cmd": attacker.bait})
    put(attacker, spec, attacker.signer.sign_spec(spec))
    before = sorted(tmp_path.iterdir())

    until(
        lambda: attacker.connection.zscore(attacker.key("queue", "any"), id) is None,
        within=20,
        what="it to be taken",
    )

    attacker.got_nothing()
    assert sorted(tmp_path.iterdir()) == before


def test_an_outcome_that_no_worker_signed_is_told_to_nobody(attacker, ghost_job):
    job = attacker.key("job", ghost_job.id)
    attacker.connection.hset(job, mapping={"state": "succeeded", "finished": "1"})
    attacker.connection.set(attacker.key("outcome", ghost_job.id), b"a b {}\nall is well")
    attacker.connection.xadd(attacker.key("done", ghost_job.id), {"o": b"a b {}\nall is well"})

    with pytest.raises(BadSignature):
        attacker.fleet.job.fetch(ghost_job.id).get(timeout=5)
    attacker.connection.hset(job, "state", "queued")
