"""Selectors, filters and --all in the commands that take jobs; move, rm, prune, result."""

from __future__ import annotations

import json
import os

import pytest

from tests.system.commands import Terminal, relayq, shown, submit

pytestmark = pytest.mark.system


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def held(*options: str) -> str:
    """Queue a job that no worker takes."""
    return submit("--on", "nowhere", "--wait-for-host", *options, "true")


def done(*options: str) -> str:
    """Run a job to its end; returns its id."""
    id = submit(*options)
    relayq("wait", "-q", id)
    return id


def test_jobs_are_named_in_many_ways(cli):
    one, two, three = (done("--group", "ways", "--name", f"way{n}", f"echo {n}") for n in (1, 2, 3))

    for selector, wanted in [
        ((three[:6],), "3\n"),
        (("last",), "3\n"),
        (("last~1",), "2\n"),
        (("way1",), "1\n"),
        (("@ways",), "1\n2\n3\n"),
        (("ways[2-3]",), "2\n3\n"),
        (("way3", "last", "way1"), "3\n1\n"),
        (("--filter", "group=ways", "--filter", "name=*2"), "2\n"),
    ]:
        printed = relayq("result", *selector)
        assert sorted(printed.stdout.split()) == sorted(wanted.split()), selector
    logs = relayq("logs", "@ways")
    assert logs.stdout == "1\n2\n3\n"
    assert f"relayq: {two}  way2: echo 2\n" in logs.stderr
    both = json.loads(relayq("show", "--json", one, two).stdout)
    assert [job["id"] for job in both["jobs"]] == [one, two]
    assert relayq("wait", "@ways").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show"], 2, "which job?"),
        (["cancel"], 2, "which job?"),
        (["show", "--filter", "state"], 125, "KEY=VALUE"),
        (["show", "--filter", "colour=red"], 125, "no such filter"),
        (["ps", "--filter", "state=asleep"], 125, "no such state"),
        (["logs", "@nobody"], 125, "nobody"),
        (["ps", "--columns", "ID,SMELL"], 2, "no column SMELL"),
        (["move", "last"], 2, "where to?"),
        (["move", "a", "b", "c"], 2, "one job and one host"),
        (["prune"], 2, "what may go?"),
    ],
)
def test_what_was_asked_wrong_says_so_and_what_to_type(cli, arguments, code, said):
    asked = relayq(*arguments)

    assert asked.returncode == code
    assert said in asked.stderr
    assert "\n  hint: " in asked.stderr


def test_a_result_is_what_was_written_byte_for_byte(cli, tmp_path):
    wanted = os.urandom(100_000) + b"\r\n\n"
    (tmp_path / "bytes").write_bytes(wanted)
    id = done(f"cat {tmp_path / 'bytes'}; echo not this >&2")

    printed = relayq("result", id, text=False)

    assert (printed.stdout, printed.stderr, printed.returncode) == (wanted, b"", 0)


def test_a_result_of_what_failed_or_goes_on(cli):
    failed, waiting = done("echo partly; exit 5"), held()

    of_failed, of_waiting = relayq("result", failed), relayq("result", waiting)

    assert (of_failed.stdout, of_failed.returncode) == ("partly\n", 5)
    assert "failed: exit 5" in of_failed.stderr
    assert of_waiting.returncode == 125
    assert f"hint: relayq wait {waiting}" in of_waiting.stderr
    as_json = json.loads(relayq("result", "--json", failed).stdout)
    assert as_json == {"schema": 1, "id": failed, "state": "failed", "result": "partly\n"}
    relayq("cancel", waiting)


def test_move_sends_a_waiting_job_elsewhere(cli):
    first, second = held("--group", "mv"), held("--group", "mv")

    raised = relayq("move", first, "--prio", "high")
    assert raised.stdout == f"{first}  ->nowhere  priority 8\n"
    assert relayq("move", first, "atlantis").returncode == 125

    moved = relayq("move", "--filter", "group=mv", "here")

    assert moved.returncode == 0, moved.stderr
    assert len(moved.stdout.splitlines()) == 2
    assert relayq("wait", "@mv").returncode == 0
    assert shown(second)["host"] == "here"
    ended = relayq("move", first, "here")
    assert ended.returncode == 125
    assert "hint: " in ended.stderr


def test_rm_forgets_what_ended_and_nothing_else(cli):
    ended, waiting = done("true"), held()

    several = relayq("rm", waiting, ended)
    again = relayq("rm", ended)

    assert (several.stdout, several.returncode) == (f"{ended}\n", 125)
    assert f"{waiting} is queued" in several.stderr
    assert (again.returncode, again.stdout) == (125, "")
    relayq("cancel", waiting)


def test_bulk_acts_ask_and_without_a_terminal_refuse(cli):
    ids = [held("--label", "bulk") for _ in range(3)]

    refused = relayq("cancel", "--filter", "label=bulk")
    assert refused.returncode == 2
    assert "this would cancel 3 jobs" in refused.stderr
    assert shown(ids[0])["state"] == "queued"

    asked = Terminal("cancel", "--filter", "label=bulk")
    asked.sees("cancel 3 jobs? [y/N]")
    asked.type("n\n")
    assert asked.finish() == 1
    assert shown(ids[0])["state"] == "queued"

    agreed = Terminal("cancel", "--filter", "label=bulk")
    agreed.sees("[y/N]")
    agreed.type("y\n")
    assert agreed.finish() == 0
    assert {shown(id)["state"] for id in ids} == {"cancelled"}
    # One job, or jobs that were named, are no bulk.
    assert relayq("rm", "--filter", "label=bulk", "--filter", "name=none").returncode == 0
    assert len(relayq("rm", *ids[:2]).stdout.split()) == 2
    assert relayq("rm", "--filter", "label=bulk").stdout == f"{ids[2]}\n"


def test_all_means_what_the_verb_can_be_done_to(cli):
    ended, failed, waiting = done("true"), done("exit 1"), held()

    cancelled = relayq("cancel", "--all", "-y", "--json")
    retried = relayq("retry", "--all", "-y")

    assert [job["id"] for job in json.loads(cancelled.stdout)["jobs"]] == [waiting]
    assert failed in retried.stdout.split()
    assert not {ended, waiting} & set(retried.stdout.split())
    assert relayq("wait", "-q", "--all").returncode in (0, 1)
    assert relayq("cancel", "--all").stderr == "relayq: there is no such job\n"
    assert relayq("retry", "--filter", "state=cancelled", "-y", "--json").returncode == 0
    relayq("cancel", "--all", "-y")


def test_a_description_that_fits_no_job_is_told_and_is_no_failure(cli):
    for verb in ("cancel", "retry", "rm", "wait", "logs", "result", "show"):
        none = relayq(verb, "--filter", "group=none")
        assert (none.stdout, none.stderr) == ("", "relayq: there is no such job\n"), verb
        assert none.returncode == 0
    assert relayq("wait", "-q", "--filter", "group=none").stderr == ""


def test_prune_forgets_what_ended_long_ago(cli):
    ids = [done("true") for _ in range(4)]

    assert relayq("prune", "--older-than", "7d", "-y").stdout == "forgot 0 jobs\n"
    assert relayq("prune", "--keep", "2").returncode == 2
    pruned = relayq("prune", "--keep", "2", "-y", "--json")

    assert json.loads(pruned.stdout)["removed"] >= 2
    left = relayq("ps", "-aq", "--state", "succeeded").stdout.split()
    assert set(ids[2:]) <= set(left)
    assert not set(ids[:2]) & set(left)


def test_an_error_is_json_wherever_json_was_asked_for(cli, monkeypatch):
    usage = relayq("show", "--json", "--nope")
    assert json.loads(usage.stdout)["error"]["hint"] == "relayq show --help"
    assert usage.returncode == 2

    monkeypatch.setenv("RELAYQ_OUTPUT", "json")
    unknown, jobs = relayq("show", "zzzz"), relayq()
    assert json.loads(unknown.stdout)["error"]["code"] == "no_such_job"
    assert "jobs" in json.loads(jobs.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        *("ps", "show last", "logs last", "wait last", "result last", "status", "version"),
        *(
            "cancel last",
            "retry last",
            "rm last",
            "prune --keep 9 -y",
            "run",
            "submit",
            "move last",
        ),
    ],
)
def test_every_command_prints_one_json_value(cli, arguments):
    command, *rest = arguments.split()
    done("true")
    if command == "move":
        rest = [held(), "here"]

    words = [] if command not in ("run", "submit") else ["true"]
    printed = relayq(command, *rest, "--json", *words)

    value = json.loads(printed.stdout)
    assert value["schema"] == 1
    assert "error" not in value, value


def test_the_commands_of_this_machine_print_json(home):
    up = json.loads(relayq("up", "--json").stdout)
    stopped = json.loads(relayq("worker", "stop", "--json").stdout)
    down = json.loads(relayq("down", "--json").stdout)
    broker = json.loads(relayq("broker", "start", "--json").stdout)
    gone = json.loads(relayq("broker", "stop", "--json").stdout)

    assert (up["schema"], up["broker"]["private"], up["worker"]["slots"]) == (1, True, 2)
    assert stopped == {"schema": 1, "stopped": ["worker"], "running": []}
    assert down == {"schema": 1, "stopped": ["private broker"]}
    assert broker["broker"]["address"] == up["broker"]["address"]
    assert gone == {"schema": 1, "stopped": ["broker"]}
