"""What an upgrade runs, by how relayq came to be on a machine; and what it never takes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from relayq import config
from relayq.errors import RelayqError
from relayq.host import upgrading
from relayq.kinds import HostFacts, find
from relayq.model.installs import UV, VENV, Install, check_source, commands, read_install
from relayq.model.jobs import Spec
from relayq.model.submitters import Submitter

VENV_ONE = Install(VENV, "git+https://example.org/relayq", ("serve", "qr"), "/opt/venv")
UV_ONE = Install(UV, "relayq", (), "/home/fred/.local/bin/uv")


def run(install, source, *, is_links=False):
    return [" ".join(argv) for argv in commands(install, source, is_links=is_links, python="3.12")]


def test_a_virtual_environment_is_upgraded_by_its_own_pip_even_to_the_same_version():
    first, second = run(VENV_ONE, "git+https://example.org/relayq@v2")

    pip = "/opt/venv/bin/python -m pip install --quiet --disable-pip-version-check"
    wanted = "relayq[serve,qr] @ git+https://example.org/relayq@v2"
    assert first == f"{pip} --upgrade {wanted}"
    assert second == f"{pip} --force-reinstall --no-deps {wanted}"


def test_uv_installs_its_tool_anew_with_the_python_that_runs():
    assert run(UV_ONE, "relayq==1.2") == [
        "/home/fred/.local/bin/uv tool install --quiet --force --reinstall-package relayq "
        "--python 3.12 relayq==1.2"
    ]


def test_a_directory_of_wheels_is_all_that_is_asked():
    first, _ = run(VENV_ONE, "/mnt/wheels", is_links=True)

    assert "--no-index --find-links /mnt/wheels" in first
    assert first.endswith("relayq[serve,qr]")


def test_a_path_with_odd_letters_stays_one_path():
    (argv,) = commands(UV_ONE, "/mnt/my wheels/a#b.whl", is_links=False, python="3.12")

    assert argv[-1] == "relayq @ file:///mnt/my%20wheels/a%23b.whl"


@pytest.mark.parametrize(
    "source",
    [
        "--index-url=http://evil",
        "-e/tmp/x",
        "relayq; rm -rf ~",
        "relayq==1 --pre",
        "somethingelse",
        "relayq @ http://evil",
        "wheels/relayq.whl",
        "ftp://x/y",
        "/tmp/x\n--pre",
        "",
    ],
)
def test_what_pip_would_take_for_something_else_is_refused(source):
    with pytest.raises(RelayqError, match="nowhere that relayq could come from"):
        check_source(source)


@pytest.mark.parametrize("method", [UV, VENV])
def test_what_an_installer_wrote_is_read(method):
    said = {"method": method, "source": "relayq", "extras": ["serve"], method: "/x"}

    assert read_install(json.dumps(said)) == Install(method, "relayq", ("serve",), "/x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"method": "pip", "source": "relayq"}',
        '{"method": "venv", "source": "relayq"}',
        '{"method": "uv", "source": "relayq", "extras": ["a] evil"]}',
        '{"method": "uv", "source": 5}',
    ],
)
def test_what_no_installer_wrote_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        read_install(text)


def test_a_checkout_is_its_owner_s_to_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr(upgrading, "_is_checkout", lambda: True)
    with pytest.raises(RelayqError, match="no installer") as caught:
        upgrading.install_of(config.load({"RELAYQ_HOME": str(tmp_path)}))
    assert "relayq worker restart" in caught.value.hint


def test_an_upgrade_is_the_command_that_a_person_would_type_there():
    kind = find("upgrade")
    host = HostFacts("pi4", "/home/fred", state_dir="/home/fred/.relayq/agents")

    command = kind.kind.plan(kind.read_payload({"source": "relayq==1.2"}), host)

    assert command.argv[1:] == (
        *("-P", "-m", "relayq", "worker", "upgrade", "--json"),
        *("--source", "relayq==1.2"),
    )
    assert command.env["RELAYQ_HOME"] == "/home/fred/.relayq"
    with pytest.raises(RelayqError, match="nowhere that relayq could come from"):
        kind.read_payload({"source": "--pre"})


def test_who_may_use_no_shell_upgrades_only_from_where_the_owner_installed():
    anna = Submitter(b"k" * 32, "anna", no_shell=True)
    own = Spec("abc100000000", "upgrade", {"source": None})
    evil = replace(own, payload={"source": "https://evil.example/relayq.whl"})

    assert anna.why_not(own, host="pi4", now=0.0, timeout=60.0) == ""
    assert "an upgrade from elsewhere" in anna.why_not(evil, host="pi4", now=0.0, timeout=60.0)
