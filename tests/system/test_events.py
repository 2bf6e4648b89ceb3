"""relayq events: what happened, told by the command as it was done by real processes."""

from __future__ import annotations

import json
import signal

import pytest

from tests.system.commands import begin, relayq, submit
from tests.waiting import until

pytestmark = pytest.mark.system


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def told(*arguments: str) -> list[dict]:
    done = relayq("events", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["events"]


def test_a_jobs_story_has_who_asked_where_it_ran_and_how_it_ended(cli):
    id = submit("exit 3")
    relayq("wait", id)

    submitted, claimed, ended = told("--job", id)

    assert submitted["what"] == "submitted"
    assert submitted["who"].endswith("@here")
    assert (claimed["what"], claimed["host"], claimed["attempt"]) == ("claimed", "here", 1)
    assert (ended["what"], ended["state"], ended["exit_code"]) == ("ended", "failed", 3)
    assert ended["at"].endswith("Z")


def test_an_act_of_a_person_names_that_person(cli):
    id = submit("sleep 60")
    relayq("cancel", id)

    [cancelled] = [event for event in told("--job", id) if event["what"] == "cancelled"]

    assert cancelled["who"].endswith("@here")


def test_show_tells_a_jobs_events(cli):
    id = submit("exit 3")
    relayq("wait", id)

    lines = relayq("show", id).stdout.splitlines()

    told_at = next(i for i, line in enumerate(lines) if line.startswith("  Events"))
    assert "submitted    for any host, by " in lines[told_at]
    assert lines[told_at + 2].endswith("ended        failed, exit 3, on here (attempt 1)")


def test_a_line_for_people_says_the_same(cli):
    id = submit("--name", "told", "exit 3")
    relayq("wait", id)

    lines = relayq("events", "--job", "told").stdout.splitlines()

    assert lines[-1].endswith(f"ended        {id}  failed, exit 3, on here (attempt 1)")


def test_the_trail_is_narrowed_by_host_age_and_number(cli):
    submit("true")

    assert {event["host"] for event in told("--host", "here")} == {"here"}
    assert len(told("-n", "1")) == 1
    assert told("-n", "0") == []
    assert told("--host", "nosuchhost") == []
    assert told("--since", "1h") == told("-n", "10000")


def test_what_happened_to_a_job_that_was_forgotten_is_still_told(cli):
    id = submit("true")
    relayq("wait", id)
    assert relayq("rm", id).returncode == 0

    assert [event["what"] for event in told("--job", id)][-1] == "forgotten"


def test_events_are_followed_until_an_interrupt(cli):
    ids = []

    def is_told():
        ids.append(submit("true"))
        return relayq("wait", ids[-1]).returncode == 0 and len(ids) > 2

    with begin("events", "-f", "-n", "0", "--json", "--host", "here") as follower:
        until(is_told, within=30, what="three jobs to end")
        line = json.loads(follower.stdout.readline())
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0

    assert line["job"] in ids


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--job", "zzzz"], 125, "no such job: zzzz"),
        (["--since", "yesterday"], 2, "expected a duration"),
        (["-n", "-1"], 2, "-1 is not in the range"),
    ],
)
def test_what_cannot_be_asked_is_said(cli, arguments, code, said):
    done = relayq("events", *arguments)

    assert done.returncode == code
    assert said in done.stderr
