"""What a host starts: for whom, not twice, and not too late."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from relayq import clock
from relayq.config import Config
from relayq.errors import BadSignature, ConfigError, NoSuchJob, NoSuchSchedule
from relayq.host import authorizing
from relayq.host.admission import FILE, Admission, EndedBefore, Unauthorised
from relayq.host.attempts import ClaimNote
from relayq.host.delivery import Attempt
from relayq.identity import Identity
from relayq.kinds import Command
from relayq.model import batches, fans
from relayq.model.consents import LASTS, new_consent
from relayq.model.jobs import JobState, Outcome, Spec, Token, new_id
from relayq.model.questions import Reply
from relayq.model.schedules import Schedule, ScheduleRecord, run_of
from relayq.model.submitters import Submitter
from relayq.recurring import sign
from relayq.signing import Signer

FLEET = b"f" * 32
ANNA = Identity(b"a" * 32, "anna")
MALLORY = Identity(b"m" * 32, "mallory")
WORKER = Identity(b"w" * 32, "worker")
NOW = int(clock.now())
DAY = 86_400
NOBODY = Signer(FLEET)


def signer(identity):
    return Signer(FLEET, identity)


def spec(**fields):
    asked = {"payload": {"cmd": ["true"]}, "signed_at": NOW, "timeout": 60.0, **fields}
    return Spec(asked.pop("id", new_id()), asked.pop("kind", "run_command"), **asked)


class Records:
    """The broker's records, as anybody who can write there would have them."""

    def __init__(self) -> None:
        self.specs, self.consents, self.notes = {}, {}, {}
        self.jobs = SimpleNamespace(signed_spec=self._spec, consent=self.consents.get)
        self.schedules = SimpleNamespace(fetch=self._schedule)

    def _spec(self, id):
        if id not in self.specs:
            raise NoSuchJob(f"no such job: {id}")
        return self.specs[id]

    def _schedule(self, name):
        if name not in self.notes:
            raise NoSuchSchedule(f"no such schedule: {name}")
        return SimpleNamespace(record=ScheduleRecord(name, self.notes[name], "1"))

    def hold(self, made, by):
        self.specs[made.id] = signer(by).sign_spec(made)
        return made


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def host(tmp_path, records):
    made = Admission(Config(home=tmp_path), "pi4", records, NOBODY, may_run=lambda queue: True)
    yield made
    made.seen.close()


@pytest.fixture
def authorize(tmp_path):
    def write(identity, **limits):
        authorizing.add(tmp_path, Submitter(identity.public, identity.name, **limits))

    return write


def admit(host, made, by=None, **more):
    return host.admit(made, signer(by).sign_spec(made), **more)


# For whom


def test_without_a_file_the_fleets_key_is_enough(host):
    assert admit(host, spec()).submitters == ()
    assert admit(host, spec(), ANNA).submitters == ()


def test_with_one_only_the_keys_in_it_are(host, authorize):
    authorize(ANNA)

    assert [one.name for one in admit(host, spec(), ANNA).submitters] == ["anna"]
    for other in (MALLORY, None):
        with pytest.raises(Unauthorised, match="isn't authorised for it on pi4"):
            admit(host, spec(), other)


def test_a_signature_of_something_else_is_none(host, authorize):
    authorize(ANNA)
    one, other = spec(), spec(payload={"cmd": ["false"]})
    head, mac, _ = signer(ANNA).sign_spec(one).split(b" ", 2)
    _, own_mac, body = NOBODY.sign_spec(other).split(b" ", 2)
    pasted = b" ".join((head, own_mac + b"." + mac.partition(b".")[2], body))

    assert NOBODY.check_spec(pasted, id=other.id) == other
    with pytest.raises(BadSignature, match="the signature of anna is wrong"):
        host.admit(other, pasted)


def test_a_key_can_be_taken_away_while_the_worker_runs(host, authorize, tmp_path):
    authorize(ANNA)
    authorize(MALLORY)
    admit(host, spec(), MALLORY)

    authorizing.remove(tmp_path, "mallory")

    with pytest.raises(Unauthorised):
        admit(host, spec(), MALLORY)
    admit(host, spec(), ANNA)


@pytest.mark.parametrize("text", ["", "# nobody\n", "ed25519 AAAA x\n", "\xff"])
def test_a_file_that_says_nobody_or_nothing_lets_nobody_in(host, tmp_path, text):
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))

    with pytest.raises(Unauthorised):
        admit(host, spec(), ANNA)


def test_a_file_on_a_disk_that_is_not_there_lets_nobody_in(host, tmp_path):
    (tmp_path / FILE).symlink_to(tmp_path / "not-mounted" / FILE)
    with pytest.raises(Unauthorised, match="can't read its"):
        admit(host, spec(), ANNA)

    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to(FILE)
    with pytest.raises(Unauthorised, match="can't read its"):
        admit(host, spec(), ANNA)


def test_a_job_of_a_schedule_that_is_gone_is_for_other_hosts_to_run(host, authorize):
    authorize(ANNA)
    with pytest.raises(Unauthorised, match="isn't authorised"):
        admit(host, spec(meta={"schedule": "gone", "instant": "2026-11-22T00:00:00+00:00"}))


def test_without_cryptography_the_stricter_mode_is_refused_with_what_helps(
    host, authorize, monkeypatch, caplog
):
    authorize(ANNA)
    signed = signer(ANNA).sign_spec(one := spec())
    monkeypatch.setitem(
        __import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None
    )

    with pytest.raises(Unauthorised, match="cryptography") as refusal:
        host.admit(one, signed)
    assert refusal.value.hint == "pip install 'relayq[signing]'"
    host.tell()
    assert "no job runs here" in caplog.text
    with pytest.raises(ConfigError, match="cryptography"):
        authorize(MALLORY)


def test_what_a_step_came_to_is_checked_as_well(host, authorize):
    authorize(ANNA, no_shell=True)
    asked = spec(payload={"cmd": ["${{ steps.a.stdout }}"]})
    admitted = admit(host, asked, ANNA)

    filled = replace(asked, payload={"cmd": ["/bin/sh"]})
    with pytest.raises(Unauthorised, match="may not use a shell"):
        host.check_start(admitted, filled, Command(("/bin/sh",), "/"))


# What workers make of what was signed


def derived(records, authorize, kind):
    """Return what a person signed, what a worker made of it, and the job to compare with."""
    authorize(ANNA)
    if kind == "batch":
        payload = {"items": [[0, "echo a"], [1, "echo b"]]}
        whole = records.hold(spec(kind="run_batch", payload=payload, meta={"map": "m"}), ANNA)
        return batches.given_back(whole, [1])[0]
    if kind == "list":
        step = spec(payload={"cmd": "echo $X"}, fans="x = y", is_template=True, flow="f")
        return fans.child_of(records.hold(step, ANNA), 2, {"x": "any"})
    job = replace(spec(payload={"cmd": "date"}), signed_at=0)
    schedule = Schedule("nightly", "u" * 12, "every 1h", (job.as_dict(),), since=NOW - 7200.0)
    records.notes["nightly"] = sign(signer(ANNA), schedule)
    return run_of(schedule, NOW - 3600.0, signed_at=NOW - 3600).jobs[0]


KINDS = ["batch", "list", "schedule"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_worker_makes_of_it_needs_no_key(host, records, authorize, kind):
    made = derived(records, authorize, kind)

    assert [one.name for one in admit(host, made).submitters] == ["anna"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"cmd": "id"}},
        {"id": new_id()},
        {"secrets": ("TOKEN",)},
        {"git": "main"},
        {"files_out": ({"pattern": "*"},)},
        {"meta": {}, "item_of": None, "ancestors": ()},
        {"meta": {"schedule": "no-such", "instant": "x", "map": "m", "item": "1"}},
    ],
    ids=lambda change: "-".join(change),
)
def test_whatever_else_it_says_was_not_signed(host, records, authorize, kind, change):
    made = replace(derived(records, authorize, kind), **change)

    with pytest.raises((Unauthorised, NoSuchSchedule, NoSuchJob)):
        admit(host, made)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_by_nobody_authorised_makes_nothing(host, records, authorize, kind):
    made = derived(records, authorize, kind)
    authorizing.remove(host._register._path.parent, "anna")
    authorize(MALLORY)

    with pytest.raises(Unauthorised):
        admit(host, made)


def test_an_item_of_a_host_is_no_other_hosts(host, records, authorize):
    authorize(ANNA)
    step = spec(host="mini", payload={"cmd": "echo"}, fans="x = y", is_template=True)
    child = fans.child_of(records.hold(step, ANNA), 0, {"x": 1})
    host._may_run = lambda queue: queue != "host.mini"

    with pytest.raises(Unauthorised):
        admit(host, replace(child, host="pi4"))


# What jobs ask their workers to submit


def below(parent, **fields):
    return spec(ancestors=(*parent.ancestors, parent.id), **fields)


def test_a_workers_key_is_good_for_what_the_parents_submitter_may(host, records, authorize):
    authorize(ANNA, kinds=("run_command",))
    authorize(WORKER, children=True)
    parent = records.hold(spec(), ANNA)
    child = records.hold(below(parent), WORKER)

    assert [one.name for one in admit(host, child, WORKER).submitters] == ["worker", "anna"]
    assert admit(host, below(child), WORKER)
    with pytest.raises(Unauthorised, match="anna may submit run_command only"):
        admit(host, below(parent, kind="transcode", payload={}), WORKER)


@pytest.mark.parametrize("by", [None, MALLORY, WORKER])
def test_a_workers_key_is_good_for_nothing_else(host, records, authorize, by):
    authorize(ANNA)
    authorize(WORKER, children=True)
    parent = records.hold(spec(), MALLORY)

    with pytest.raises(Unauthorised):
        admit(host, below(parent), WORKER)
    with pytest.raises(Unauthorised):
        admit(host, spec(), WORKER)
    good = records.hold(spec(), ANNA)
    if by is not WORKER:
        with pytest.raises(Unauthorised):
            admit(host, below(good), by)


def test_a_worker_cannot_go_beyond_the_grant_of_the_job(host, records, authorize):
    authorize(ANNA)
    authorize(WORKER, children=True)
    parent = records.hold(spec(grant={"depth": 0}), ANNA)

    with pytest.raises(BadSignature, match="isn't below"):
        admit(host, below(parent), WORKER)
    with pytest.raises(Exception, match="may submit nothing"):
        admit(host, below(parent, grant={"depth": 0}), WORKER)


# Not twice


@pytest.fixture
def ended(host):
    one = spec()
    host.seen.end(one.id, admit(host, one).good_until + DAY)
    return one


def consent(records, one, by=None, **about):
    records.consents[one.id] = signer(by).sign_consent(
        new_consent(one.id, **{"at": clock.now(), **about})
    )


def test_what_this_host_has_ended_is_not_started_again(host, ended):
    with pytest.raises(BadSignature, match="pi4 has brought it to an end before") as refusal:
        admit(host, ended)
    assert refusal.value.hint == f"relayq retry {ended.id}"


def test_the_same_job_signed_anew_is_started_again_and_the_old_spec_is_not(host, ended):
    anew = replace(ended, signed_at=ended.signed_at + 1)

    host.seen.end(anew.id, admit(host, anew).good_until + DAY)

    for one in (ended, anew):
        with pytest.raises(BadSignature, match="before"):
            admit(host, one)


def test_how_it_ended_of_late_is_told_again(host, records):
    one = spec()
    note = ClaimNote(b"", 0, 0)
    attempt = Attempt(Token(one.id, 1, "u"), note, Path("nowhere"), good_until=NOW + LASTS)
    ended = Outcome(one.id, 1, "u", "pi4", JobState.SUCCEEDED, "exit", exit_code=0)
    host.ended(attempt, ended)

    with pytest.raises(EndedBefore) as before:
        admit(host, one)
    assert before.value.outcome == ended
    consent(records, one)
    admit(host, one)

    host.ended(attempt, replace(ended, files=({"name": "a"},)))
    consent(records, one)
    admit(host, one)
    host.ended(attempt, replace(ended, output_bytes=10**9))
    with pytest.raises(BadSignature, match="before"):
        admit(host, one)


def test_that_is_known_after_a_restart(host, ended, tmp_path, records):
    host.seen.close()
    again = Admission(Config(home=tmp_path), "pi4", records, NOBODY, may_run=lambda queue: True)

    with pytest.raises(BadSignature, match="before"):
        admit(again, ended)
    again.seen.close()


def test_a_persons_word_is_good_for_one_more_end(host, ended, records):
    consent(records, ended)

    admit(host, ended)
    admit(host, ended)  # the retry of an attempt that failed, by its policy
    host.seen.end(ended.id, NOW + LASTS + 2 * DAY)

    with pytest.raises(BadSignature, match="before"):
        admit(host, ended)
    consent(records, ended)
    admit(host, ended)


def test_that_word_is_about_its_own_job_or_run(host, ended, records):
    consent(records, ended)
    records.consents[ended.id] = signer(None).sign_consent(new_consent(new_id(), at=NOW))
    with pytest.raises(BadSignature, match="before"):
        admit(host, ended)

    step = spec(flow="run1")
    host.seen.end(step.id, NOW + LASTS + 2 * DAY)
    records.consents[step.id] = NOBODY.sign_consent(new_consent("", flow="run1", at=NOW))
    admit(host, step)

    records.consents[ended.id] = b"00000000 11 {}"
    with pytest.raises(BadSignature):
        admit(host, ended)


def test_an_answer_is_such_a_word_as_well(host, ended):
    answer = NOBODY.sign_answer(Reply(ended.id, 1, "", "go on", (), "anna", 0.0))

    admit(host, ended, answer=answer)
    admit(host, ended)
    host.seen.end(ended.id, NOW + LASTS + 2 * DAY)

    with pytest.raises(BadSignature, match="before"):
        admit(host, ended, answer=answer)


def test_where_keys_are_asked_for_that_word_needs_one(host, ended, authorize, records):
    authorize(ANNA, no_shell=True)
    consent(records, ended)
    with pytest.raises(Unauthorised, match="the consent isn't signed by a key"):
        admit(host, ended, ANNA)

    consent(records, ended, ANNA)
    admit(host, ended, ANNA)

    said = Reply(ended.id, 1, "", "go on", (), "anna", 0.0)
    host.check_reply(signer(ANNA).sign_answer(said), ended)
    for by in (None, MALLORY):
        with pytest.raises(Unauthorised, match="the reply isn't signed by a key"):
            host.check_reply(signer(by).sign_answer(said), ended)
    with pytest.raises(Unauthorised, match="may not use a shell"):
        host.check_reply(signer(ANNA).sign_answer(said), replace(ended, payload={"cmd": "id"}))


def test_what_cannot_be_noted_stops_nothing(host, tmp_path, ended):
    host.seen.close()
    (tmp_path / "seen.db").write_bytes(b"no database" * 100)

    admit(host, ended)
    host.seen.end(ended.id, NOW + LASTS + 2 * DAY)

    with pytest.raises(BadSignature, match="before"):
        admit(host, ended)


def test_a_full_disk_keeps_no_job_from_starting_or_ending(host, tmp_path, monkeypatch):
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", no_room)

    job = spec()
    admit(host, job)
    host.seen.end(job.id, NOW + LASTS + 2 * DAY)


# Not too late


def test_a_spec_of_long_ago_needs_a_persons_word(host, records):
    old = spec(signed_at=NOW - 31 * DAY)
    with pytest.raises(BadSignature, match="signed 31 days ago, which is too long"):
        admit(host, old)

    consent(records, old)
    admit(host, old)
    admit(host, old)


def test_one_that_may_wait_longer_or_is_due_later_is_good_for_longer(host):
    admit(host, spec(signed_at=NOW - 31 * DAY, expires=40.0 * DAY))
    admit(host, spec(signed_at=NOW - 31 * DAY, due_at=NOW - 1.0))
    admit(host, spec(signed_at=NOW + DAY))


def test_an_old_word_does_not_help(host, records):
    old = spec(signed_at=NOW - 90 * DAY)
    consent(records, old, at=NOW - 31 * DAY)

    with pytest.raises(BadSignature, match="too long"):
        admit(host, old)


def test_what_says_no_time_is_refused_where_keys_are_asked_for(host, authorize):
    one = spec(signed_at=0)
    admit(host, one)
    authorize(ANNA)

    with pytest.raises(BadSignature, match="doesn't say when"):
        admit(host, one, ANNA)
