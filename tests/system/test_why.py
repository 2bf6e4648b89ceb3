"""relayq why: what it says of jobs on a private fleet."""

from __future__ import annotations

import json

import pytest

from tests.system.commands import begun, relayq, submit, until_exists

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("shared_fleet")]


def why(*arguments: str) -> dict:
    done = relayq("why", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_why_tells_the_way_of_a_job_from_its_queue_to_its_end(tmp_path):
    go = tmp_path / "go"
    first = submit(until_exists(go))
    second = submit(until_exists(go))
    begun(first)
    begun(second)
    third = submit("echo third")
    last = submit("--after", third, "true")

    running, queued, waiting = why(first), why(third), why(last)
    go.touch()
    relayq("wait", last)
    ended = why(last)

    assert running["state"] == "running"
    assert running["summary"].startswith("runs on here for ")
    assert any("its lease ends in" in fact for fact in running["facts"])
    (host,) = queued["hosts"]
    assert (host["host"], host["answer"]) == ("here", "busy")
    assert {first, second} <= set(host["why"].rpartition(": ")[2].split(", "))
    assert waiting["facts"] == [f"{third} is queued"]
    assert f"relayq why {third}" in waiting["options"]
    assert ended["summary"].startswith("succeeded after")


def test_why_a_job_for_another_host_is_not_taken():
    id = submit("--on", "moon", "--wait-for-host", "true")

    done = relayq("why", id)

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{id} true is queued for ")
    assert "  no host called moon has ever registered" in lines
    assert "  here  no        the job is for moon only" in lines
    assert lines[-1].startswith("Options: relayq worker start . relayq move ")
    relayq("cancel", id)


def test_why_a_job_failed_in_words():
    id = submit("exit 127")
    relayq("wait", id)

    assert "command not found" in why(id)["facts"][0]


def test_why_of_several_jobs_is_a_list_and_of_none_an_error():
    ids = [submit("true"), submit("true")]

    assert [job["id"] for job in why(*ids)["jobs"]] == ids
    assert relayq("why", "zzzz").returncode == 125


def test_a_commands_own_text_stays_inert():
    id = submit("true # \x1b[31mred")

    assert "\x1b" not in relayq("why", id).stdout
