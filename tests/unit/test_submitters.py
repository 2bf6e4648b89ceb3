"""Lines of authorized_submitters: whose key, and what its owner may."""

from __future__ import annotations

import base64

import pytest

from relayq.errors import ConfigError, RelayqError
from relayq.host import authorizing
from relayq.host.admission import FILE
from relayq.identity import Identity, is_signed_by, load_identity, make_identity
from relayq.model.jobs import Spec
from relayq.model.submitters import Submitter, read_line, read_submitters, submitter_id

KEY = bytes(range(32))
LINE = f"ed25519 {base64.b64encode(KEY).decode()} anna@laptop"
FULL = (
    f"{LINE} kinds=transcode,run_* hosts=pi*,mini cwd='/srv/my media,~/in' user=media "
    "max-timeout=7200s expires=2027-01-31 no-shell children"
)


def job(kind="run_command", **payload):
    return Spec("abc100000000", kind, payload or {"cmd": ["true"]})


def why(line, spec=None, *, host="pi4", now=0.0, timeout=60.0):
    return read_line(line).why_not(spec or job(), host=host, now=now, timeout=timeout)


def test_a_line_is_read_and_written_the_same():
    found = read_line(FULL)

    assert found.line == FULL
    assert (found.public, found.name, found.id) == (KEY, "anna@laptop", submitter_id(KEY))
    assert (found.kinds, found.cwd) == (("transcode", "run_*"), ("/srv/my media", "~/in"))
    assert (found.max_timeout, found.expires, found.user) == (7200.0, 1801353600.0, "media")
    assert (found.no_shell, found.children) == (True, True)
    assert read_line(LINE) == Submitter(KEY, "anna@laptop")
    assert read_submitters(f"# who\n\n{LINE}\n") == (Submitter(KEY, "anna@laptop"),)


@pytest.mark.parametrize("limit", ["30d", "1234567s", "0.5s", "100000h"])
def test_however_long_a_time_limit_is_its_line_can_be_read_again(limit):
    found = read_line(f"{LINE} max-timeout={limit}")

    assert read_line(found.line) == found
    assert "e+" not in why(found.line, timeout=None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ssh-ed25519 AAAA x", "a key is `ed25519 BASE64 NAME`"),
        ("ed25519 AAAA x", "no Ed25519 key"),
        (LINE.rpartition(" ")[0], "a key is `ed25519 BASE64 NAME`"),
        (LINE + " no_shell", "not a limit: 'no_shell'"),
        (LINE + " kinds=", "not a limit"),
        (LINE + " kinds=,", "kinds names nothing"),
        (LINE + " no-shell=no", "not a limit"),
        (LINE + " kinds=a kinds=b", "kinds is said twice"),
        (LINE + " cwd=srv", "a directory begins with / or ~/"),
        (LINE + " max-timeout=soon", "max-timeout: expected a duration"),
        (LINE + " expires=soon", "expires is a date"),
        (LINE + " user=;id", "not a user's name"),
        (LINE + " cwd='/a", "a quote isn't closed"),
        (LINE.replace("anna@laptop", "a,b"), "a key's name has"),
        (f"{LINE}\n{LINE}", "line 2: the key of anna@laptop is here twice"),
    ],
)
def test_a_line_that_is_wrong_spoils_the_file(line, said):
    with pytest.raises(RelayqError, match=said):
        read_submitters(line)


@pytest.mark.parametrize(
    ("limit", "spec", "said"),
    [
        ("kinds=run_*", job(), ""),
        ("kinds=transcode", job(), "may submit transcode only"),
        ("hosts=mini,pi*", job(), ""),
        ("hosts=mini", job(), "not to pi4"),
        ("max-timeout=1m", job(), ""),
        ("max-timeout=59s", job(), "at most 59 s"),
        ("expires=1970-01-02", job(), ""),
        ("expires=1970-01-01", job(), "ended 1970-01-01"),
        ("no-shell", job(), ""),
        ("no-shell", job(cmd="true"), "a program and its arguments"),
        ("no-shell", job(cmd=["/usr/bin/bash", "-c", "id"]), "/usr/bin/bash is one"),
        ("no-shell", job("run_batch", items=[[0, ["id"]], [1, "id"]]), "a program and"),
        ("no-shell", job("run_batch", items=[[0, ["id"]]]), ""),
        ("no-shell", job("run_claude", prompt="x"), "--permission read_only"),
        ("no-shell", job("run_claude", prompt="x", permission="read_only"), ""),
        ("no-shell", job("transcode", inputs=["a"]), ""),
    ],
)
def test_a_limit_holds(limit, spec, said):
    found = why(f"{LINE} {limit}", spec)

    assert said in found
    assert bool(said) == bool(found)


def test_a_job_without_a_time_limit_is_longer_than_any():
    assert "at most 7200 s" in why(f"{LINE} max-timeout=2h", timeout=None)


@pytest.mark.parametrize(
    ("patterns", "directory", "fits"),
    [
        ("/srv/media", "/srv/media", True),
        ("/srv/media", "/srv/media/a/b", True),
        ("/srv/media", "/srv/media2", False),
        ("/srv/media/", "/srv/media/a", True),
        ("/srv/*/in", "/srv/x/in/a", True),
        ("/srv/../etc", "/etc/x", True),
        ("~/work", "/home/anna/work/x", True),
        ("~/work", "/root/work", False),
        ("~", "/home/anna", True),
        ("/", "/anything", True),
        ("/a,/b", "/b", True),
    ],
)
def test_a_directory_is_one_of_those_or_below(patterns, directory, fits):
    said = read_line(f"{LINE} cwd={patterns}").why_not_in(directory, home="/home/anna")

    assert (said == "") == fits


# The file


def test_authorising_again_changes_the_limits_and_keeps_the_comments(tmp_path):
    path = tmp_path / FILE
    path.write_text("# mine")
    path.chmod(0o600)
    other = Submitter(b"o" * 32, "other")

    assert authorizing.add(tmp_path, read_line(FULL)) is None
    authorizing.add(tmp_path, other)
    assert authorizing.add(tmp_path, read_line(LINE)) == read_line(FULL)

    assert path.read_text() == f"# mine\n{other.line}\n{LINE}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    authorizing.remove(tmp_path, submitter_id(KEY))
    authorizing.remove(tmp_path, "other")
    assert authorizing.read(tmp_path) == ()
    with pytest.raises(RelayqError, match="which has nobody"):
        authorizing.remove(tmp_path, "other")


def test_what_cannot_be_read_is_not_written_over(tmp_path):
    path = tmp_path / FILE
    path.write_text("nonsense\n")
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="line 1: a key is"):
        authorizing.add(tmp_path, read_line(LINE))
    assert path.read_text() == "nonsense\n"


# A key of one's own


def test_a_key_is_made_once_and_readable_by_its_owner_only(tmp_path):
    assert load_identity(tmp_path) is None
    made = make_identity(tmp_path, "anna@laptop")
    path = tmp_path / "submitter.key"

    found = load_identity(tmp_path)
    assert found is not None
    assert (found.line, found.id) == (made.line, submitter_id(made.public))
    assert is_signed_by(made.public, found.sign(b"text"), b"text")
    assert not is_signed_by(made.public, found.sign(b"text"), b"texts")
    assert not is_signed_by(made.public, b"", b"text")
    with pytest.raises(ConfigError, match="has a key already"):
        make_identity(tmp_path, "anna@laptop")
    assert make_identity(tmp_path, "a", replaces=True).id != made.id
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        load_identity(tmp_path)
    path.chmod(0o600)
    path.write_text("ed25519-private AAAA a\n")
    with pytest.raises(ConfigError, match="isn't a submitter's key"):
        load_identity(tmp_path)


def test_the_private_half_shows_nowhere(tmp_path):
    identity = Identity(b"s" * 32, "anna")

    assert base64.b64encode(b"s" * 32).decode() not in f"{identity.line} {identity!r} {identity.id}"


@pytest.mark.parametrize("payload", [{"cmd": []}, {"items": [[0, []]]}])
def test_without_a_shell_a_command_of_nothing_is_refused(payload):
    spec = Spec("abc100000000", "run_batch", payload)
    assert "may not use a shell" in why(f"{LINE} no-shell", spec)


def test_a_link_that_leads_nowhere_is_no_missing_file(tmp_path):
    (tmp_path / FILE).symlink_to(tmp_path / "not-mounted" / FILE)

    with pytest.raises(ConfigError, match="can't read"):
        authorizing.read(tmp_path)
