"""The audit trail of a real worker and a real broker: what it says, and that it can be proved."""

from __future__ import annotations

import hashlib
import json
import signal

import pytest

from relayq import config, embedded
from relayq.dispatch import TEMPLATE
from relayq.ledger import fleet_ledger, host_ledger
from relayq.model.jobs import Spec, new_id
from relayq.store.jobs import Submission
from tests.system.commands import relayq
from tests.system.conftest import start_fleet
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet of these tests alone: they read all that it did."""
    home = tmp_path_factory.mktemp("audit", numbered=True) / "home"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        yield from start_fleet(home, patch)
        embedded.stop_broker(config.load())


def entries(fleet, **facts) -> list[dict]:
    """Return the entries of this host that say all that."""
    found = [dict(entry.facts) for entry in host_ledger(fleet.home).entries()]
    return [one for one in found if facts.items() <= one.items()]


def verified(fleet) -> dict:
    done = relayq("audit", "verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["trails"]


def test_a_job_is_noted_with_who_asked_for_what_and_how_it_ended(fleet):
    result = fleet.job.run("exit 3")
    result.wait(20)

    [started] = entries(fleet, what="started", job=result.id)
    [ended] = entries(fleet, what="ended", job=result.id)

    assert (started["kind"], started["attempt"], started["host"]) == ("run_command", 1, "here")
    assert "@" in started["who"]
    assert len(started["spec"]) == 64
    assert started["key"]
    assert started["user"]
    assert (ended["exit"], ended["state"], ended["uid"]) == (3, "failed", started["uid"])
    listed = relayq("audit", "ls", "--job", result.id).stdout.splitlines()
    assert ["started" in listed[0], "ended" in listed[1], len(listed)] == [True, True, 2]


def test_what_was_refused_is_noted_and_never_started(fleet):
    session = fleet.relay.session()
    spec = Spec(new_id(), "run_command", {"cmd": "true"})
    forged = session.signer.sign_spec(spec).replace(b"true", b"false")
    submissions = [Submission(spec, forged)]
    session.store.jobs.submit(submissions, template=TEMPLATE, key_id=session.signer.key_id)
    fleet.job.fetch(spec.id).wait(20)

    [refused] = entries(fleet, what="refused", job=spec.id)

    assert "signature" in refused["why"]
    assert refused["spec"] == hashlib.sha256(forged).hexdigest()
    assert not entries(fleet, what="started", job=spec.id)


def test_the_fleets_events_are_kept_on_the_brokers_machine(fleet):
    result = fleet.job.run("true")
    result.wait(20)

    def kept() -> list[str]:
        trail = fleet_ledger(fleet.home).entries()
        return [entry.what for entry in trail if entry.facts.get("job") == result.id]

    until(lambda: "ended" in kept(), within=40, what="the events to be kept")

    def heads() -> list[dict]:
        trail = fleet_ledger(fleet.home).entries()
        return [dict(one.facts) for one in trail if one.what == "head"]

    until(heads, within=40, what="the head of the host's trail to be noted")
    assert heads()[0]["host"] == "here"
    assert relayq("audit", "verify", "--head", heads()[0]["head"]).returncode == 0
    assert kept()[0] == "submitted"
    assert verified(fleet)["fleet"]["whole"]


def test_killed_workers_break_no_chain_and_note_each_end_once(fleet):
    results = []
    for number in range(2):
        results.append(fleet.job.run("sleep 0.4", name=f"kept-{number}"))
        until(
            lambda result=results[-1]: entries(fleet, what="started", job=result.id),
            what="its start to be noted",
        )
        fleet.end_worker(signal.SIGKILL)
        fleet.start_worker()
    for result in results:
        result.wait(20)

    found = verified(fleet)["host"]

    assert found["whole"]
    assert not found["cuts"]
    assert len(entries(fleet, what="worker")) >= 3
    for result in results:
        assert [one["state"] for one in entries(fleet, what="ended", job=result.id)] == [
            "succeeded"
        ]


def test_a_trail_that_was_changed_is_told_with_its_place(fleet):
    noted = fleet.job.run("true").wait(20)
    until(lambda: entries(fleet, what="ended", job=noted.id), what="its end to be noted")
    path = host_ledger(fleet.home).files()[-1]
    fleet.end_worker()
    whole = path.read_bytes()
    changed = whole.replace(b'"started"', b'"stopped"', 1)
    assert changed != whole
    path.write_bytes(changed)
    try:
        done = relayq("audit", "verify")
    finally:
        path.write_bytes(whole)
        fleet.start_worker()

    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    assert path.name in done.stdout
    head = verified(fleet)["host"]["head"]
    assert relayq("audit", "verify", "--head", head).returncode == 0
    assert relayq("audit", "verify", "--head", head[:-1] + "~").returncode == 2
