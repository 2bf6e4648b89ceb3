"""relayq key, as people type it."""

from __future__ import annotations

import json

import pytest

from tests.system.commands import relayq

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _here(home, monkeypatch):
    monkeypatch.setenv("RELAYQ_HOME", str(home))
    monkeypatch.setenv("RELAYQ_WORKER__NAME", "nas")


def said(*words, status=0, **options):
    done = relayq("key", *words, **options)
    assert done.returncode == status, done.stderr
    return done


def test_a_key_is_made_shown_authorised_and_taken_away(home):
    assert "own    none" in said("show").stdout
    line = said("new", "--name", "anna@laptop").stdout.strip()
    assert said("show").stdout.splitlines()[-1] == line
    assert "whoever has the fleet's key" in said("ls").stdout

    limits = ("--kinds", "transcode", "--max-timeout", "2h", "--no-shell")
    done = said("authorize", line, *limits)
    assert "nas refuses all other jobs from now on" in done.stderr
    assert said("authorize", "-", "--cwd", "/srv", input=line).stderr.startswith("relayq: changed")
    [row] = json.loads(said("ls", "--json").stdout)["submitters"]
    assert (row["name"], row["cwd"], row["kinds"]) == ("anna@laptop", ["/srv"], [])

    said("revoke", "anna@laptop")
    assert json.loads(said("ls", "--json").stdout)["submitters"] == []
    assert (home / "authorized_submitters").read_text() == ""


def test_what_is_wrong_is_said_with_what_helps():
    said("new", "--name", "a")
    assert "has a key already" in said("new", status=125).stderr
    assert "relayq key show" in said("authorize", "ssh-rsa", "x", "y", status=125).stderr
    assert "a key's name has" in said("new", "--force", "--name", "a b", status=125).stderr
    assert "relayq key ls" in said("revoke", "b", status=125).stderr


@pytest.mark.parametrize("option", ["kinds", "hosts", "cwd", "user", "max-timeout", "expires"])
def test_a_limit_that_says_nothing_is_not_left_out(home, option):
    line = said("new", "--name", "a").stdout.strip()

    said("authorize", line, f"--{option}", "", status=125)

    assert not (home / "authorized_submitters").exists()


def test_rotate_prints_the_new_keys_name(shared_fleet, monkeypatch):
    monkeypatch.setenv("RELAYQ_HOME", str(shared_fleet.home))
    before = json.loads(said("show", "--json").stdout)["fleet"]

    done = json.loads(said("rotate", "--json").stdout)

    shown = json.loads(said("show", "--json").stdout)
    assert (done["before"], done["fleet"]) == (before, shown["fleet"])
    assert [one["id"] for one in shown["former"]] == [before]
    assert shared_fleet.job.run("echo still").get(timeout=20) == "still"


def test_what_can_not_be_written_or_read_is_said_without_a_traceback(home):
    (home / "submitter.key").mkdir()
    (home / "sealing.key").mkdir()
    (home / "audit").touch()

    assert "can't write" in said("new", "--force", status=125).stderr
    for words, why in (
        (("secret", "key"), "can't read"),
        (("audit", "ls"), "can't read the audit trail: Not a directory"),
        (("audit", "verify"), "can't read the audit trail"),
    ):
        done = relayq(*words)
        assert (done.returncode, "Traceback" in done.stderr) == (125, False), done.stderr
        assert why in done.stderr
    (home / "fleet.key").symlink_to(home / "gone" / "fleet.key")
    assert "a link that leads nowhere" in said("show", status=125).stderr
