"""A broker's own authority: what it signs, when it does so anew, and what becomes of its key."""

import datetime
import shutil
import ssl
import subprocess

import pytest

from relayq.embedded import certificates
from relayq.embedded.certificates import Authority
from relayq.errors import RelayqError

NAMES = ["mini.local", "100.64.0.3", "fd7a::1"]


@pytest.fixture
def made(tmp_path):
    return Authority(tmp_path).issue(tmp_path, NAMES)


def contents(made):
    return made.certificate.read_bytes(), made.key.read_bytes(), made.ca.read_bytes()


def test_a_certificate_is_one_that_openssl_takes_too(made):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    checked = ["openssl", "verify", "-x509_strict", "-CAfile", made.ca, made.certificate]

    done = subprocess.run(checked, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_keys_are_for_their_owner_alone(made, tmp_path):
    assert {path.stat().st_mode & 0o777 for path in (made.key, tmp_path / "ca.key")} == {0o600}


@pytest.mark.parametrize("names", [NAMES, NAMES[1:], [*NAMES[::-1], *NAMES]])
def test_a_certificate_that_will_do_stays(made, tmp_path, names):
    before = contents(made)

    Authority(tmp_path).issue(tmp_path, names)

    assert contents(made) == before


def test_a_certificate_without_its_own_key_is_made_anew(made, tmp_path):
    # Cut off between the two files, a start has written one of them.
    other = tmp_path / "other"
    other.mkdir()
    made.key.write_bytes(Authority(other).issue(other, NAMES).key.read_bytes())

    Authority(tmp_path).issue(tmp_path, NAMES)

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate, made.key)


def test_another_name_makes_another_certificate_of_the_same_authority(made, tmp_path):
    certificate, key, authority = contents(made)

    Authority(tmp_path).issue(tmp_path, [*NAMES, "other"])

    assert made.certificate.read_bytes() != certificate
    assert made.key.read_bytes() != key
    assert made.ca.read_bytes() == authority


def test_a_certificate_is_made_anew_long_before_it_ends(made, tmp_path, monkeypatch):
    before = contents(made)
    later = certificates._now() + datetime.timedelta(days=8.5 * 365)
    monkeypatch.setattr(certificates, "_now", lambda: later)

    Authority(tmp_path).issue(tmp_path, NAMES)

    assert contents(made)[0] != before[0]
    assert contents(made)[2] == before[2]


def test_one_of_another_authority_is_replaced(made, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").issue(tmp_path / "other", NAMES)
    shutil.copy(other.certificate, made.certificate)

    Authority(tmp_path).issue(tmp_path, NAMES)

    assert made.certificate.read_bytes() != other.certificate.read_bytes()


def test_the_authoritys_key_may_be_kept_elsewhere_until_it_must_sign(made, tmp_path):
    before = contents(made)
    (tmp_path / "ca.key").unlink()

    Authority(tmp_path).issue(tmp_path, NAMES)
    assert contents(made) == before

    with pytest.raises(RelayqError, match="ca.key can't sign") as refused:
        Authority(tmp_path).issue(tmp_path, ["other"])
    assert "put it back from a copy" in refused.value.hint
    assert contents(made) == before


def test_the_key_of_another_authority_signs_nothing(made, tmp_path):
    (tmp_path / "other").mkdir()
    Authority(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "ca.key", tmp_path / "ca.key")

    with pytest.raises(RelayqError, match="the key of another one"):
        Authority(tmp_path).issue(tmp_path, ["other"])


def test_a_name_that_no_certificate_can_have_is_refused(tmp_path):
    with pytest.raises(RelayqError, match="can't stand in a certificate") as refused:
        Authority(tmp_path).issue(tmp_path, [*NAMES, "münchen"])

    assert "--tls-name" in refused.value.hint
