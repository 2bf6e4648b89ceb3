"""A host's secrets: their file, their names, and what a job may ask for."""

import os

import pytest

from relayq.config import load
from relayq.errors import ConfigError, RelayqError, Unplaceable
from relayq.host import secrets
from relayq.model.jobs import Spec
from relayq.model.placement import HostFacts, able
from relayq.model.secrets import check_secret, check_secrets, need_of, secret_in
from relayq.specs import make_spec


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "home" / "secrets.env")


@pytest.mark.parametrize(
    "value", ["hunter2-hunter2", '"quoted"', "'x y z'", "  spaces  ", "a=b#c$d", "\\n-ü-€", "x" * 9]
)
def test_what_is_kept_is_what_was_given(path, value):
    secrets.keep(path, "KEY", value)
    secrets.keep(path, "OTHER_KEY", "another")

    assert secrets.read(path) == {"KEY": value, "OTHER_KEY": "another"}
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"


def test_a_secret_is_replaced_and_removed_and_the_rest_of_the_file_stays(path):
    secrets.keep(path, "KEY", "first-value")
    with open(path, "a") as file:
        file.write("# by hand\nexport B_KEY = 'by-hand'\n")

    secrets.keep(path, "KEY", "second-value")

    assert secrets.read(path) == {"KEY": "second-value", "B_KEY": "by-hand"}
    assert secrets.remove(path, "B_KEY")
    assert not secrets.remove(path, "B_KEY")
    with open(path) as file:
        assert file.read() == '# by hand\nKEY="second-value"\n'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "too few to be masked"),
        ("short", "too few to be masked"),
        ("two\nlines", "several lines"),
        ("two\u2028lines", "several lines"),
        ("a line and its end\n", "several lines"),
        ("nul\0nul", "several lines"),
        ("x" * 20_000, "longer than"),
    ],
)
def test_what_can_not_be_a_secret_is_refused_without_showing_it(path, value, said):
    with pytest.raises(RelayqError, match=said) as caught:
        secrets.keep(path, "KEY", value)
    assert not value or value not in str(caught.value)
    assert secrets.read(path) == {}


@pytest.mark.parametrize("line", ["KEY=short", "PATH=/tmp/elsewhere", "key=hunter2", "K@a=hunter2"])
def test_a_wrong_line_of_the_file_is_an_error_without_its_value(path, line):
    secrets.keep(path, "GOOD", "hunter2-hunter2")
    with open(path, "a") as file:
        file.write(f"{line}\n")

    with pytest.raises(ConfigError, match=r"secrets\.env") as caught:
        secrets.read(path)
    assert line.partition("=")[2] not in caught.value.message


def test_a_file_that_others_can_read_is_refused(path):
    secrets.keep(path, "KEY", "hunter2-hunter2")
    os.chmod(path, 0o640)

    for use in (secrets.read, lambda one: secrets.keep(one, "KEY", "another")):
        with pytest.raises(ConfigError, match="others can read the secrets") as caught:
            use(path)
        assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("name", ["hf_token", "A B", "1X", "", "X" * 56, "PATH", "RELAYQ_KEY"])
def test_a_name_that_no_secret_can_have_is_refused(name):
    with pytest.raises(RelayqError):
        check_secret(name)


def test_a_name_and_its_capability_are_each_others():
    assert check_secrets(["B,A", "B"]) == ("A", "B")
    assert need_of("HF_TOKEN") == "secret:hf_token"
    assert secret_in("secret:hf_token") == "HF_TOKEN"
    assert secret_in("ffmpeg") is None


def test_a_job_with_secrets_needs_them_and_holds_their_names(home):
    spec = make_spec(
        load(), "run_command", {"cmd": "true"}, submitter="me", secrets=["B", "A"], needs="ffmpeg"
    )

    assert spec.secrets == ("A", "B")
    assert spec.needs == ("ffmpeg", "secret:a", "secret:b")
    assert Spec.from_dict(spec.as_dict()) == spec


def test_a_variable_and_a_secret_can_not_have_one_name(home):
    payload = {"cmd": "true", "env": {"KEY": "open"}}

    with pytest.raises(RelayqError, match="can't be both a variable"):
        make_spec(load(), "run_command", payload, submitter="me", secrets="KEY")


def test_where_no_host_has_a_secret_the_refusal_says_which_and_what_to_type(home):
    spec = make_spec(load(), "run_command", {"cmd": "true"}, submitter="me", secrets="HF_TOKEN")

    with pytest.raises(Unplaceable, match="mini has no secret HF_TOKEN") as caught:
        able(spec.constraints, [HostFacts("mini")])
    assert "relayq secret set HF_TOKEN" in str(caught.value.hint)
    assert able(spec.constraints, [HostFacts("pi", capabilities=frozenset({"secret:hf_token"}))])
