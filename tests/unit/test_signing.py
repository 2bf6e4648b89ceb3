"""Signing: nobody without the fleet's key makes a worker run anything, or a client believe it."""

import errno
import json
import os
import stat
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from relayq import clock, rotation
from relayq.config import Config
from relayq.errors import BadSignature, ConfigError
from relayq.identity import Identity, is_signed_by, write_private
from relayq.model.jobs import JobState, Outcome, Spec
from relayq.sealing import seal
from relayq.signing import (
    FleetKeys,
    FormerKey,
    Ring,
    Signer,
    UnknownKey,
    WrongScope,
    endorsement,
    key_id_of,
    load_key,
    load_keys,
)

SPEC = Spec("abc100000000", "run_command", {"cmd": "echo ü"}, host="pi4", after=("x", "y"))
OUTCOME = Outcome(
    id="abc100000000",
    attempt=2,
    uid="f00d",
    host="pi4",
    state=JobState.FAILED,
    reason="exit",
    exit_code=3,
    result={"text": "ü"},
    output=b"line\n\x00\xff second\n",
    output_bytes=17,
    run_time=1.5,
    files=({"name": "out.txt", "sha256": "0" * 64, "size": 3},),
    outputs={"version": "1 ü"},
)


@pytest.fixture
def signer():
    return Signer(b"k" * 32)


# Specs


def test_a_signed_spec_comes_back_as_it_was(signer):
    assert signer.check_spec(signer.sign_spec(SPEC), id=SPEC.id) == SPEC


def test_two_machines_with_one_key_trust_each_other(signer):
    other = Signer(b"k" * 32)

    assert other.key_id == signer.key_id
    assert other.check_spec(signer.sign_spec(SPEC), id=SPEC.id) == SPEC


def test_one_spec_is_signed_the_same_way_each_time(signer):
    reordered = replace(SPEC, payload=dict(reversed(SPEC.payload.items())))

    assert signer.sign_spec(SPEC) == signer.sign_spec(reordered)


def test_the_key_does_not_show(signer):
    signed = signer.sign_spec(SPEC)

    assert b"k" * 8 not in signed
    assert (b"k" * 32).hex()[:8] not in signer.key_id


def test_another_fleets_spec_is_told_from_a_forged_one(signer):
    stranger = Signer(b"s" * 32)

    with pytest.raises(UnknownKey, match=f"signed with key {stranger.key_id}"):
        signer.check_spec(stranger.sign_spec(SPEC), id=SPEC.id)


def test_a_spec_that_was_changed_is_refused(signer):
    changed = signer.sign_spec(SPEC).replace(b"echo", b"rm -rf")

    with pytest.raises(BadSignature, match="signature is wrong"):
        signer.check_spec(changed, id=SPEC.id)


def test_every_byte_of_a_signed_spec_counts(signer):
    signed = signer.sign_spec(SPEC)

    for i in range(len(signed)):
        changed = signed[:i] + bytes([signed[i] ^ 1]) + signed[i + 1 :]
        with pytest.raises(BadSignature):
            signer.check_spec(changed, id=SPEC.id)


def test_a_spec_under_another_jobs_id_is_refused(signer):
    with pytest.raises(BadSignature, match="signed for job abc100000000, not abd200000000"):
        signer.check_spec(signer.sign_spec(SPEC), id="abd200000000")


@pytest.mark.parametrize("garbage", [b"", b"x", b"a b", b"\xff\xfe \x00 z", b"  {}", b"a b c"])
def test_garbage_is_refused(signer, garbage):
    with pytest.raises(BadSignature):
        signer.check_spec(garbage, id=SPEC.id)


def test_an_outcome_cannot_pass_for_a_spec_nor_a_spec_for_an_outcome(signer):
    with pytest.raises(BadSignature, match="signature is wrong"):
        signer.check_spec(signer.sign_outcome(OUTCOME), id=SPEC.id)
    with pytest.raises(BadSignature, match="signature is wrong"):
        signer.check_outcome(signer.sign_spec(SPEC), id=SPEC.id)


@pytest.mark.parametrize("change", [{"v": 2}, {"user": "root"}])
def test_a_spec_that_this_version_cannot_read_is_refused_though_well_signed(signer, change):
    body = json.dumps(SPEC.as_dict() | change).encode()
    signed = signer._sign(b"relayq spec\0", body)

    with pytest.raises(BadSignature, match="can't be read"):
        signer.check_spec(signed, id=SPEC.id)


# Outcomes


def test_a_signed_outcome_comes_back_with_its_output(signer):
    assert signer.check_outcome(signer.sign_outcome(OUTCOME), id=OUTCOME.id) == OUTCOME


def test_the_output_is_signed_too(signer):
    changed = signer.sign_outcome(OUTCOME).replace(b"second", b"sec0nd")

    with pytest.raises(BadSignature):
        signer.check_outcome(changed, id=OUTCOME.id)


def test_another_jobs_outcome_is_refused(signer):
    with pytest.raises(BadSignature, match="not abd200000000"):
        signer.check_outcome(signer.sign_outcome(OUTCOME), id="abd200000000")


@pytest.mark.parametrize("head", [b"", b"[]", b"{}", b'{"state": "sleeping"}', b'{"state": 1}'])
def test_an_outcome_that_cannot_be_read_is_refused_though_well_signed(signer, head):
    signed = signer._sign(b"relayq outcome\0", head + b"\noutput")

    with pytest.raises(BadSignature, match="can't be read"):
        signer.check_outcome(signed, id=OUTCOME.id)


# The key's file


def test_the_first_use_makes_a_key_that_only_its_owner_can_read(tmp_path):
    path = tmp_path / "home" / "fleet.key"

    key = load_key(path)

    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path) == key
    assert [file.name for file in path.parent.iterdir()] == ["fleet.key"]


def test_each_fleet_has_a_key_of_its_own(tmp_path):
    assert load_key(tmp_path / "one") != load_key(tmp_path / "two")


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    barrier, keys = threading.Barrier(8), []

    def first_use():
        barrier.wait()
        keys.append(load_key(tmp_path / "fleet.key"))

    threads = [threading.Thread(target=first_use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 8
    assert len(set(keys)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "fleet.key"
    load_key(path)
    path.chmod(mode)

    with pytest.raises(ConfigError, match="others can read") as refused:
        load_key(path)

    assert refused.value.hint == f"chmod 600 '{path}'"


@pytest.mark.parametrize("text", ["", "hello", "abcd", "zz" * 32, "é" * 32])
def test_what_is_no_key_is_refused(tmp_path, text):
    path = tmp_path / "fleet.key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="isn't a fleet key"):
        load_key(path)


def test_a_key_may_have_been_copied_by_hand(tmp_path):
    path = tmp_path / "fleet.key"
    key = load_key(path)
    path.write_text(f"  {key.hex().upper()}\r\n\n")

    assert load_key(path) == key


def test_a_key_that_is_a_directory_says_so(tmp_path):
    with pytest.raises(ConfigError, match="can't read the fleet's key"):
        load_key(tmp_path)


def test_a_file_that_is_not_even_text_is_no_key(tmp_path):
    path = tmp_path / "fleet.key"
    path.write_bytes(b"\xff\xfe\x00\x80" * 8)
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="isn't a fleet key"):
        load_key(path)


# Bearer tokens


def test_a_bearer_is_good_for_its_scope_until_it_expires(signer):
    signer.check_bearer(signer.bearer("files", 60), "files")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda token: token.replace(".files.", ".admin."), "signature is wrong"),
        (lambda token: token.replace(".files.", ".files.9"), "signature is wrong"),
        (lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"), "signature is wrong"),
        (lambda token: token.replace(token[:8], "00000000", 1), "another fleet key"),
        (lambda token: token + " ", "no token"),
        (lambda token: token.upper(), "no token"),
        (lambda token: "", "no token"),
        (lambda token: token + "\n", "no token"),
        (lambda token: token.replace(".files.", ".fil\u00e9s."), "no token"),
    ],
)
def test_a_bearer_that_was_changed_is_refused(signer, change, why):
    with pytest.raises(BadSignature, match=why):
        signer.check_bearer(change(signer.bearer("files", 60)), "files")


def test_a_bearer_is_refused_after_its_end_and_for_anything_else(signer):
    with pytest.raises(BadSignature, match=r"expired \d+ s ago"):
        signer.check_bearer(signer.bearer("files", -3), "files")
    with pytest.raises(WrongScope, match="for files, not for admin"):
        signer.check_bearer(signer.bearer("files", 60), "admin")
    with pytest.raises(UnknownKey):
        signer.check_bearer(Signer(b"x" * 32).bearer("files", 60), "files")


def test_a_signed_text_of_another_sort_is_no_bearer(signer):
    signed = signer.sign_spec(SPEC).decode().split()
    with pytest.raises(BadSignature):
        signer.check_bearer(f"{signed[0]}.files.9999999999.{signed[1]}", "files")


# Keys of submitters, and keys before this one


def test_what_people_say_carries_their_own_signature_as_well(signer):
    anna = signer.endorsing(Identity(b"a" * 32, "anna"))
    signed = anna.sign_spec(SPEC)
    found = endorsement("spec", signed)

    assert signer.check_spec(signed, id=SPEC.id) == SPEC
    assert found.id == anna.identity.id
    assert is_signed_by(anna.identity.public, found.signature, found.text)
    assert signed == anna.sign_spec(SPEC)
    assert endorsement("note", anna.sign_note("a", b"b")) is not None
    assert endorsement("spec", signer.sign_spec(SPEC)) is None
    assert b"." not in anna.sign_outcome(OUTCOME).split(b" ")[1]


def test_a_signature_for_one_purpose_is_none_for_another(signer):
    anna = signer.endorsing(Identity(b"a" * 32, "anna"))
    found = endorsement("reply", anna.sign_spec(SPEC))

    assert not is_signed_by(anna.identity.public, found.signature, found.text)


@pytest.mark.parametrize(
    "mac", [b"x.", b".y", b"a.b", b"a.b.c", b"a..c", b"a.b.\xff", b"a.\xff.aa"]
)
def test_what_is_no_signature_is_none(mac):
    found = endorsement("spec", b"00000000 " + mac + b" {}")

    assert found is None or found.signature != b""
    assert endorsement("spec", mac) is None


def test_what_a_former_key_signed_is_good_until_its_end(signer):
    old, gone = Signer(b"o" * 32), Signer(b"g" * 32)
    former = (FormerKey(b"o" * 32, clock.now() + 60), FormerKey(b"g" * 32, clock.now() - 1))
    new = Signer(Ring(FleetKeys(b"n" * 32, former)))

    assert new.check_spec(old.sign_spec(SPEC), id=SPEC.id) == SPEC
    new.check_bearer(old.bearer("files", 60), "files")
    with pytest.raises(UnknownKey):
        new.check_spec(gone.sign_spec(SPEC), id=SPEC.id)
    with pytest.raises(UnknownKey):
        old.check_spec(new.sign_spec(SPEC), id=SPEC.id)


def test_keys_survive_their_file(tmp_path):
    keys = FleetKeys(b"n" * 32, (FormerKey(b"o" * 32, 1900000000.0),))
    path = tmp_path / "fleet.key"
    path.write_text(keys.text)
    path.chmod(0o600)

    assert load_keys(path) == keys
    assert load_key(path) == b"n" * 32
    for bad in ("", "zz\n", keys.text + "nonsense\n", keys.text + "00 until 1\n"):
        path.write_text(bad)
        with pytest.raises(ConfigError, match="isn't a fleet key"):
            load_keys(path)


def test_a_signer_looks_for_a_key_that_it_does_not_know_before_it_gives_up(signer):
    newer = Signer(b"n" * 32)
    signer.ring.renew = lambda: bool(signer.ring.replace(FleetKeys(b"n" * 32)) or True)
    other = signer.endorsing(None)

    assert signer.check_spec(newer.sign_spec(SPEC), id=SPEC.id) == SPEC
    assert other.key_id == signer.key_id == newer.key_id


def test_a_note_that_another_key_signs_keeps_its_submitters_signature(signer):
    anna = signer.endorsing(Identity(b"a" * 32, "anna"))
    new = Signer(b"n" * 32)
    before = anna.sign_note("schedule:a", b"text")
    after = signer.signed_anew(before, by=new)

    assert new.check_note(after, name="schedule:a") == b"text"
    assert endorsement("note", after) == endorsement("note", before)
    with pytest.raises(BadSignature):
        signer.signed_anew(before.replace(b"text", b"Text"), by=new)


def test_a_home_that_takes_no_file_gets_no_key_and_says_why(tmp_path):
    (tmp_path / "home").touch()

    with pytest.raises(ConfigError, match="can't (read|make) the fleet's key"):
        load_keys(tmp_path / "home" / "fleet.key")


def test_a_machine_whose_disk_is_full_goes_on_with_the_new_key(tmp_path, monkeypatch, caplog):
    def no_room(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "fleet.key"
    write_private(path, FleetKeys(b"o" * 32).text)
    new = FleetKeys(b"n" * 32)
    sealed = seal(b"o" * 32, rotation._PURPOSE, new.text.encode())
    known = {key_id_of(b"o" * 32): sealed}
    store = SimpleNamespace(rotations=SimpleNamespace(successor=known.get))
    signer = rotation.workers_signer(Config(home=tmp_path), store)
    monkeypatch.setattr(os, "open", no_room)

    signer.check_spec(Signer(b"n" * 32).sign_spec(SPEC), id=SPEC.id)

    assert signer.key_id == key_id_of(b"n" * 32)
    assert "this process only" in caplog.text
    assert load_keys(path).key == b"o" * 32
