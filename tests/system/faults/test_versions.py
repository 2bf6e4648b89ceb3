"""Row 32: what another version of relayq wrote is refused, or ignored, by rule."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest

from relayq import signing
from relayq.dispatch import TEMPLATE
from relayq.errors import BadSignature, RelayqError
from relayq.model.jobs import Spec, new_id
from relayq.store.jobs import Submission
from tests.system.faults.blows import until_state
from tests.system.faults.journal import check_invariants
from tests.system.faults.scene import ROOT
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"v": 2}, "version 2"),
        ({"v": None}, "version"),
        ({"flavour": "new"}, "unknown spec fields: flavour"),
        ({"kind": "fold_proteins"}, "fold_proteins"),
        ({"payload": {"cmd": "true", "gpu": True}}, "gpu"),
        ({"payload": {}}, "cmd"),
        ({"after": 3}, "spec"),
        ({"payload": 5}, "payload"),
        ({"payload": {"cmd": {"new": "form"}}}, "a list of texts"),
        ({"timeout": "soon"}, "timeout"),
        ({"retries": "many"}, "retries"),
        ({"host": ["one"]}, "host"),
    ],
)
def test_a_spec_of_another_version_is_refused_and_says_why(scene, one, changes, said):
    spec = Spec(new_id(), "run_command", {"cmd": "true"})
    session = scene.relay.session()
    body = json.dumps({**spec.as_dict(), **changes}).encode()
    signed = session.signer._sign(signing._SPEC, body)

    session.store.jobs.submit(
        [Submission(spec, signed)], template=TEMPLATE, key_id=session.signer.key_id
    )

    result = scene.job.fetch(spec.id)
    until(lambda: state_of(scene, spec.id) == "failed", within=15, what="the refusal")
    assert scene.store.connection.hget(f"{{rq}}:job:{spec.id}", "reason") == b"refused"
    outcome = result.outcome()
    assert outcome is not None
    assert said in str(outcome.error)
    assert one.is_alive


@pytest.mark.parametrize("change", [{"mood": "good"}, {"state": "folded"}, {"attempt": None}])
def test_an_outcome_of_another_version_is_refused_and_not_half_read(scene, change):
    result = scene.job.run("echo fine")
    until_state(result, "succeeded")
    signer, key = scene.relay.session().signer, f"{{rq}}:outcome:{result.id}"
    head, _, output = signer._check(signing._OUTCOME, scene.store.connection.get(key)).partition(
        b"\n"
    )
    facts = {**json.loads(head), **change}
    if change.get("attempt", 0) is None:
        del facts["attempt"]
    scene.store.connection.set(
        key, signer._sign(signing._OUTCOME, json.dumps(facts).encode() + b"\n" + output)
    )

    with pytest.raises(BadSignature, match="can't be read"):
        scene.job.fetch(result.id).get(timeout=10)


def test_an_attempt_that_another_version_began_is_adopted(scene, journal, one):
    results = [journal.submit(scene.job, gate=journal.gate) for _ in range(2)]
    for result in results:
        journal.started(result)
    one.end(signal.SIGKILL)
    for result, known in zip(results, (False, True), strict=True):
        [directory] = one.attempts(result.id)
        for name in ("command.json", "run.json"):
            facts = json.loads((directory / name).read_text())
            for later in ("feed", "tty", "leader_started"):
                facts.pop(later, None)
            facts.get("claim", {}).pop("losses", None)
            (directory / name).write_text(json.dumps({**facts, "cgroup": "x"} if known else facts))
        (directory / "a-file-of-the-next-version").touch()
        (directory / "control.json").write_text('{"op": "meditate"}')
    one.start()
    journal.gate.touch()

    records = check_invariants(journal, scene.job, ["one"], starts=1)
    assert {record.attempt for record in records.values()} == {1}


def test_what_isnt_relayqs_in_a_spool_is_left_alone(scene, journal, one):
    spool = one.config.spool
    one.end()
    names = ["notes", "a.b.c", "0000000000zz.x.y", "0000000000zz.².u", "0000000000zz.1.u"]
    for name in names:
        (spool / name).mkdir()
        (spool / name / "mine").write_text("keep")
    (spool / "0000000000zz.2.u").write_text("a file")
    (spool / "permit").write_text("not json")
    one.start()

    journal.submit(scene.job)
    check_invariants(journal, scene.job, ["one"], starts=1)
    kept = {path.parent.name for path in spool.glob("*/mine")}
    # The last is named as an attempt is, and never was prepared to its end.
    assert kept >= set(names) - {"0000000000zz.1.u"}
    for name in kept:
        shutil.rmtree(spool / name)


def test_a_message_of_another_version_is_ignored(scene, journal, one):
    redis = scene.broker.connection
    for message in ({"op": "dance"}, {"op": "cancel"}, {"op": "follow", "job": 7}, {}, [], "x", 1):
        redis.rpush("{rq}:control:one", json.dumps(message))
    redis.rpush("{rq}:control:one", b"\xff", b"{")
    body = json.dumps([["00000000zzzz"], {"new": 1}, {"callbacks": None}])
    for task in ("relayq.fold_proteins", "relayq.run_command", "other.task"):
        envelope = {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": task, "id": "00000000zzzz", "lang": "py", "schema": 9},
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": "any"},
                "delivery_tag": new_id(),
            },
        }
        redis.lpush("{rq}:k:any", json.dumps(envelope))
    result = journal.submit(scene.job)

    until_state(result, "succeeded")
    until(lambda: redis.llen("{rq}:control:one") == 0, what="all messages to be taken")
    assert one.is_alive
    check_invariants(journal, scene.job, ["one"], starts=1)


def test_two_versions_side_by_side_refuse_each_others_specs(scene, journal, one, tmp_path):
    newer = tmp_path / "newer"
    shutil.copytree(ROOT / "relayq", newer / "relayq", ignore=shutil.ignore_patterns("__pycache__"))
    jobs = newer / "relayq" / "model" / "jobs.py"
    text = jobs.read_text()
    assert "SCHEMA = 1\n" in text
    jobs.write_text(text.replace("SCHEMA = 1\n", "SCHEMA = 2\n"))
    code = "import sys; from relayq import Relay; print(Relay().job.run(sys.argv[1]).id)"
    submitted = subprocess.run(
        [sys.executable, "-c", code, f"touch {tmp_path}/ran"],
        env={**scene.environ(scene.home, scene.link), "PYTHONPATH": str(newer)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert submitted.returncode == 0, submitted.stderr
    id = submitted.stdout.strip()

    until(lambda: state_of(scene, id) == "failed", within=15, what="the old worker's refusal")
    with pytest.raises(RelayqError, match="version 2"):
        raise scene.job.fetch(id).error(scene.job.fetch(id).record)
    one.end()
    one.start(PYTHONPATH=str(newer))
    old = scene.job.run(f"touch {tmp_path}/ran")
    until_state(old, "failed")
    assert "version 1" in str(old.error(old.record))
    assert not (tmp_path / "ran").exists()
    one.end()
    for words in (["ps", "-a"], ["show", id], ["show", old.id]):
        assert scene.relayq(*words).returncode == 0
    scene.store.jobs.forget([id])


def state_of(scene, id: str) -> str:
    return scene.store.connection.hget(f"{{rq}}:job:{id}", "state").decode()
