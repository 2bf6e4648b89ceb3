"""wait --first, logs -f of one and of several, retry --wait, --format."""

from __future__ import annotations

import json
import signal

import pytest

from relayq.model.jobs import JobState
from relayq.signing import Signer, load_key
from relayq.store import connect
from tests.redis.fleet import Clock, Fleet
from tests.system.commands import begin, begun, relayq, shown, submit, until_exists
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def done(*options: str) -> str:
    """Run a job to its end; returns its id."""
    id = submit(*options)
    relayq("wait", "-q", id)
    return id


def held(*options: str) -> str:
    """Queue a job that no worker takes."""
    return submit("--on", "nowhere", "--wait-for-host", *options, "true")


def test_the_first_that_ends_is_told_and_gives_its_code(cli):
    late, first = held("--group", "race"), submit("--group", "race", "exit 6")

    waited = relayq("wait", "--first", "@race")
    as_json = relayq("wait", "--first", "--json", "-q", late, first)

    assert (waited.stdout, waited.returncode) == (f"{first}\n", 6)
    assert f"relayq: {first}  failed: exit 6" in waited.stderr
    assert [job["id"] for job in json.loads(as_json.stdout)["jobs"]] == [first]
    assert (as_json.stderr, as_json.returncode) == ("", 6)
    relayq("cancel", late)


def test_who_waits_for_the_first_may_lose_patience(cli):
    one, two = held(), held()

    waited = relayq("wait", "--first", "--timeout", "0.3s", one, two)

    assert (waited.stdout, waited.returncode) == ("", 75)
    assert f"relayq: {one} {two} haven't ended after 0.3 s; they go on\n" in waited.stderr
    assert f"  hint: relayq wait {one} {two}\n" in waited.stderr
    relayq("cancel", one, two)


def test_following_a_job_exits_with_its_code_when_asked_to(cli):
    id = submit("echo a; sleep 0.3; echo b; exit 4")

    followed = relayq("logs", "-f", "--exit", id)

    assert (followed.stdout, followed.returncode) == ("a\nb\n", 4)
    assert f"relayq: {id}  failed: exit 4" in followed.stderr
    assert relayq("logs", "-f", id).returncode == 0
    assert relayq("logs", "-f", "--exit", "--tail", "1", "-q", id).stdout == "b\n"
    assert relayq("logs", "--exit", id).returncode == 2


def test_several_jobs_are_followed_at_once_each_line_after_its_id(cli, tmp_path):
    go = tmp_path / "go"
    one = submit("--group", "duo", f"echo a; {until_exists(go)}; echo c >&2; printf end")
    two = submit("--group", "duo", "echo b; exit 1")
    relayq("wait", "-q", two)
    begun(one)

    follower = begin("logs", "-f", "--exit", "@duo")
    read = sorted(follower.stdout.readline() for _ in range(2))
    go.touch()
    out, error = follower.communicate(timeout=20)

    assert read == sorted([f"{one} | a\n", f"{two} | b\n"])
    assert (out, follower.returncode) == (f"{one} | end\n", 1)
    assert f"{one} | c\n" in error
    assert f"relayq: {two}  failed: exit 1" in error
    plain = relayq("logs", "-f", "-q", "@duo")
    assert sorted(plain.stdout.split()) == ["a", "b", "end"]
    pieces = [
        json.loads(line) for line in relayq("logs", "-f", "--json", "@duo").stdout.splitlines()
    ]
    assert {piece["id"] for piece in pieces} == {one, two}
    assert all(piece["schema"] == 1 for piece in pieces)


def test_to_stop_following_several_jobs_harms_none_of_them(cli):
    ids = [submit("--group", "left", "echo begun; exec sleep 60") for _ in range(2)]
    follower = begin("logs", "-f", "@left")
    read = {follower.stdout.readline() for _ in ids}

    follower.send_signal(signal.SIGINT)
    out, error = follower.communicate(timeout=10)

    assert read == {f"{id} | begun\n" for id in ids}
    assert (out, error.strip(), follower.returncode) == ("", "", 130)
    assert {shown(id)["state"] for id in ids} == {"running"}
    assert relayq("cancel", *ids).returncode == 0


def test_the_outputs_of_several_jobs_are_one_json_value(cli):
    ids = [done("--group", "both", f"echo {n}") for n in range(2)]

    value = json.loads(relayq("logs", "--json", "@both").stdout)

    assert [job["id"] for job in value["jobs"]] == ids
    assert [job["output"][0]["text"] for job in value["jobs"]] == ["0\n", "1\n"]


def test_a_retry_can_be_followed_like_a_run(cli, tmp_path):
    file = tmp_path / "file"
    id = done(f"echo so far; cat {file}")
    file.write_text("found\n")

    again = relayq("retry", "--wait", id)
    file.unlink()
    as_json = relayq("retry", "--wait", "--json", id)

    assert (again.stdout, again.stderr, again.returncode) == ("so far\nfound\n", "", 0)
    value = json.loads(as_json.stdout)
    assert (value["state"], value["attempt"], value["stdout"]) == ("failed", 3, "so far\n")
    assert as_json.returncode == 1


def test_a_retry_that_is_followed_is_cancelled_without_a_terminal_as_a_run_is(cli, tmp_path):
    file = tmp_path / "file"
    id = done(f"echo begun; test -e {file} && exec sleep 60; exit 1")
    file.touch()
    again = begin("retry", "--wait", id)
    assert again.stdout.readline() == "begun\n"

    again.send_signal(signal.SIGTERM)

    again.communicate(timeout=20)
    assert again.returncode == 130
    until(lambda: shown(id)["state"] == "cancelled", within=10, what="the cancel")


def test_several_retries_are_followed_at_once(cli):
    ids = [done("--group", "anew", f"echo {n}; exit {n}") for n in range(2)]

    again = relayq("retry", "--wait", "@anew")

    assert sorted(again.stdout.splitlines()) == sorted(f"{id} | {n}" for n, id in enumerate(ids))
    assert again.returncode == 1
    assert {shown(id)["attempt"] for id in ids} == {2}


def test_a_template_chooses_what_lists_show(cli):
    id = done("--name", "shaped", "--meta", "film=Up", "exit 3")

    template = "{{.id}}\\t{{.state}} {{.exit_code}} {{.meta.film}}"
    asked = {
        ("ps", "--filter", "name=shaped"): f"{id}\tfailed 3 Up\n",
        ("show", id): f"{id}\tfailed 3 Up\n",
    }
    for command, wanted in asked.items():
        assert relayq(*command, "--format", template).stdout == wanted
    hosts = relayq("status", "--format", "{{.name}} {{.online}}").stdout.splitlines()
    assert "here true" in hosts


@pytest.mark.parametrize("command", ["ps", "show last", "status"])
def test_a_template_with_an_unknown_field_is_told_the_known_ones(home, command):
    # Without a broker: what was typed wrong is said before anything is asked.
    wrong = relayq(*command.split(), "--format", "{{.smell}}")

    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no field smell; there are " in wrong.stderr
    assert f"hint: relayq {command.split()[0]} --help" in wrong.stderr
    both = relayq(*command.split(), "--format", "x", "--json")
    assert json.loads(both.stdout)["error"]["code"] == "usage_error"


def test_the_last_line_of_ps_counts_what_is_to_come(cli):
    due = submit("--in-time", "1h", "true")
    after = submit("--after", due, "true")

    last = relayq("ps").stdout.splitlines()[-1]

    assert "1 scheduled . 1 waiting" in last
    relayq("cancel", after, due)


@pytest.fixture
def parked(cli):
    """A job that waits for a person, on a host that was there once."""
    signer = Signer(load_key(cli.config.fleet_key_path))
    # Only a worker's credential may claim.
    there = Fleet(connect(cli.broker.url), Clock(), signer)
    id = submit("--on", "ghost", "--wait-for-host", "true")
    ghost = there.host("ghost")
    ghost.finish(ghost.start(id), JobState.NEEDS_HUMAN, reason="question")
    yield id
    relayq("cancel", id)


def test_a_job_that_waits_for_a_person_ends_a_wait_with_80(parked):
    for command in (["wait"], ["wait", "--first"], ["logs", "-f", "--exit"]):
        waited = relayq(*command, parked)
        assert waited.returncode == 80, command
        assert f"relayq: {parked}  needs_human: question on ghost" in waited.stderr
    assert relayq("wait", parked, done("true")).returncode == 1
    no_result = relayq("result", parked)
    assert (no_result.returncode, no_result.stdout) == (125, "")
    assert f"{parked} is needs_human" in no_result.stderr
