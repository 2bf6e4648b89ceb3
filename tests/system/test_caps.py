"""caps, as real commands against a real worker."""

from __future__ import annotations

import json

import pytest

from tests.system.commands import relayq

pytestmark = pytest.mark.system


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    yield shared_fleet
    (shared_fleet.home / "caps.yml").unlink(missing_ok=True)


def answer(*arguments: str):
    done = relayq(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_what_a_host_can_do_is_listed_by_category(cli):
    listed = answer("caps", "ls", "here")["hosts"]["here"]

    assert "kind:run_command" in listed["kinds"]
    assert relayq("skills").stdout.startswith("HOST")


def test_the_catalogue_says_which_hosts_have_what(cli):
    told = answer("caps", "available", "--category", "media")["available"]

    assert {one["category"] for one in told} == {"media"}
    assert "ffmpeg" in {one["name"] for one in told}
    wrong = relayq("caps", "available", "--category", "toys")
    assert wrong.returncode == 125
    assert "no such category: toys" in wrong.stderr


def test_a_host_takes_jobs_that_need_what_was_added_until_it_is_taken_away(cli):
    refused = relayq("run", "--needs", "ios_build", "--", "echo", "built")
    assert refused.returncode == 125
    assert "here lacks ios_build" in refused.stderr

    assert "ios_build" in answer("caps", "add", "here", "ios_build")["capabilities"]
    done = relayq("run", "--needs", "ios_build", "--", "echo", "built")
    assert (done.returncode, done.stdout) == (0, "built\n")

    assert "ios_build" not in answer("caps", "rm", "here", "ios_build")["capabilities"]
    assert relayq("run", "--needs", "ios_build", "--", "true").returncode == 125


def test_what_a_worker_found_can_be_taken_away_and_given_back(cli):
    assert "python3" not in answer("caps", "rm", "here", "python3")["capabilities"]
    assert relayq("run", "--needs", "python3", "--", "true").returncode == 125

    assert "python3" in answer("caps", "add", "here", "python3")["capabilities"]
    assert relayq("run", "--needs", "python3", "--", "true").returncode == 0


def test_what_is_installed_is_checked_and_then_offered(cli, tmp_path):
    there = tmp_path / "there"
    (cli.home / "caps.yml").write_text(
        f"sundial: {{check: test -e {there}, linux: touch {there}, macos: touch {there}}}\n"
        "moondial: {check: 'false', linux: 'true', macos: 'true'}\n"
    )

    printed = relayq("caps", "install", "--dry-run", "here", "sundial")
    assert f"(touch {there})" in printed.stdout
    assert not there.exists()
    asks = relayq("caps", "install", "here", "sundial")
    assert asks.returncode == 125
    assert "relayq caps install -y here sundial" in asks.stderr

    installed = relayq("caps", "install", "-y", "here", "sundial")

    assert installed.returncode == 0, installed.stderr
    assert there.exists()
    assert relayq("run", "--needs", "sundial", "--", "true").returncode == 0
    assert relayq("caps", "install", "-y", "here", "moondial").returncode == 1
    assert relayq("run", "--needs", "moondial", "--", "true").returncode == 125
    assert relayq("caps", "rm", "here", "sundial").returncode == 0


def test_what_a_host_says_is_verified_there(cli, tmp_path):
    (cli.home / "caps.yml").write_text("unicorn: {check: 'false'}\nair: {check: 'true'}\n")
    assert relayq("caps", "add", "here", "unicorn").returncode == 0

    rows = {one["name"]: one for one in answer("caps", "ls", "here", "--verify")["capabilities"]}

    assert rows["unicorn"] == {
        "name": "unicorn",
        "said": True,
        "found": False,
        "next": "relayq caps install here unicorn",
    }
    assert (rows["air"]["said"], rows["air"]["found"]) == (False, True)
    assert relayq("caps", "rm", "here", "unicorn").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["add", "here", "no spaces"], 2, "expected a capability"),
        (["add", "nowhere", "ffmpeg"], 125, "no such host: nowhere"),
        (["install", "here", "ffmpg"], 125, "did you mean ffmpeg"),
        (["ls", "--verify"], 2, "--verify takes a host"),
        (["install", "here", "xcode"], 125, "doesn't know how to install xcode"),
    ],
)
def test_what_can_not_be_meant_is_an_error(cli, arguments, code, said):
    done = relayq("caps", *arguments)

    assert done.returncode == code
    assert said in done.stderr
