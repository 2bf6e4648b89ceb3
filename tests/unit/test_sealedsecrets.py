"""Secrets that only one host can open: sealed with its public key, for one variable."""

from __future__ import annotations

import subprocess
import sys

import pytest

from relayq.errors import BadSignature, ConfigError, RelayqError
from relayq.host.given import Given
from relayq.model.secrets import (
    check_secrets,
    is_key,
    name_of,
    need_of,
    said_of,
    sealed_for,
    sealed_of,
)
from relayq.sealedsecrets import Locker, mark_of, seal_secret

pytest.importorskip("cryptography")


@pytest.fixture
def locker(tmp_path):
    return Locker(tmp_path / "home")


def sealed(locker: Locker, value: str = "open-sesame", name: str = "KEY") -> str:
    public = locker.public()
    assert public is not None
    return seal_secret(public, name, value)


def test_only_the_host_that_it_was_sealed_for_opens_it(locker, tmp_path):
    text = sealed(locker, "open-sesame äöü")
    other = Locker(tmp_path / "other")
    other.public()

    assert locker.unseal("KEY", text) == "open-sesame äöü"
    assert "sesame" not in text
    with pytest.raises(BadSignature, match="another key"):
        other.unseal("KEY", text)
    with pytest.raises(BadSignature, match="no key"):
        Locker(tmp_path / "nobody").unseal("KEY", text)


def test_it_opens_under_its_own_name_alone(locker):
    with pytest.raises(BadSignature, match="sealed for OTHER"):
        locker.unseal("OTHER", sealed(locker))


@pytest.mark.parametrize("place", [30, 60, 90])
def test_one_that_was_changed_opens_nothing(locker, place):
    text = sealed(locker)
    changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]

    with pytest.raises(BadSignature, match="changed"):
        locker.unseal("KEY", changed)


def test_the_same_value_is_never_sealed_to_the_same_text(locker):
    assert sealed(locker) != sealed(locker)


def test_a_hosts_key_stays_the_same_and_is_its_owners_alone(locker, tmp_path):
    file = tmp_path / "home" / "sealing.key"
    first = locker.public()

    assert Locker(tmp_path / "home").public() == first
    assert file.stat().st_mode & 0o777 == 0o600
    modules = "import sys, pathlib; from relayq.sealedsecrets import Locker"
    asked = f"{modules}; Locker(pathlib.Path({str(file.parent)!r})).public()"
    loads = f"{asked}; sys.exit('cryptography.hazmat' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loads], check=False).returncode == 0
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read"):
        locker.public()


def test_a_sealed_secret_is_asked_for_like_any_other(locker):
    public = locker.public()
    assert public is not None
    one = f"KEY={sealed(locker)}"

    assert check_secrets([f"PLAIN,{one}"]) == (one, "PLAIN")
    assert (name_of(one), sealed_of("PLAIN")) == ("KEY", None)
    assert sealed_for(str(sealed_of(one))) == mark_of(public)
    assert need_of(one) == f"opens:{mark_of(public)}"
    assert is_key(need_of(one))
    assert not is_key(need_of("PLAIN"))
    assert said_of(one) == "KEY (sealed)"


def test_a_value_that_is_given_openly_is_refused_without_being_repeated():
    with pytest.raises(RelayqError, match="isn't a sealed secret") as raised:
        check_secrets(["KEY=open-sesame"])

    assert "sesame" not in f"{raised.value} {raised.value.hint}"
    assert "relayq secret seal KEY" in str(raised.value.hint)


def test_a_variable_is_given_once(locker):
    with pytest.raises(RelayqError, match="asked for twice"):
        check_secrets(["KEY", f"KEY={sealed(locker)}"])


def test_a_job_gets_what_the_host_has_and_what_was_sealed_for_it(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "secrets.env").write_text("PLAIN=of-the-host\n")
    (home / "secrets.env").chmod(0o600)
    one = f"KEY={sealed(Locker(home))}"
    given = Given(home, "here")

    assert given.of((one, "PLAIN")) == {"KEY": "open-sesame", "PLAIN": "of-the-host"}
    assert given.of(()) == {}
    assert given.known((one, "GONE")) == {"KEY": "open-sesame"}
    with pytest.raises(RelayqError, match="here has no secret GONE"):
        given.of((one, "GONE"))
    with pytest.raises(RelayqError, match="too few to be masked"):
        given.of((f"KEY={sealed(Locker(home), 'short')}",))
