"""The steps around a command: which run, and what the command's end then is."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from relayq.host import spool, stages
from relayq.model.output import STDERR

COMMAND = {
    "argv": ["make"],
    "stage": ["python", "-c", "..."],
    "cwd": "/work",
    "stdin": "input",
    "feed": True,
    "tty": True,
    "timeout": 5,
    "limits": {"memory": 1},
    "max_output": 9,
    "env": {"A": "b"},
}
OK = {"status": "exited", "code": 0, "signal": None, "reason": "exit", "error": None}


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the steps with these ends; what was started, and the record."""

    def ran(*ends, said=b""):
        started = []

        def begin(command, output):
            started.append(command)
            if said and "stage" in command and command["argv"] != ["make"]:
                output.append(STDERR, said)
            end = {**OK, **ends[len(started) - 1]}
            return SimpleNamespace(run=lambda: end)

        record = stages.run(str(tmp_path), COMMAND, SimpleNamespace(), begin)
        return started, record

    return ran


def test_the_command_runs_between_the_steps_as_it_is(run, tmp_path):
    started, record = run({}, {"code": 3}, {})

    before, command, after = started
    assert command is COMMAND
    assert record["code"] == 3
    assert before["argv"] == ["python", "-c", "...", "in", str(tmp_path)]
    assert after["argv"][-2:] == ["out", str(tmp_path)]


def test_the_steps_have_none_of_the_commands_limits_and_streams(run):
    (step, *_), _ = run({}, {}, {})

    limits = [step[name] for name in ("stdin", "feed", "tty", "timeout", "limits", "max_output")]
    assert limits == [None, False, False, None, None, None]
    assert step["env"] == COMMAND["env"]


def test_without_its_inputs_a_command_is_not_started(run, tmp_path):
    (tmp_path / stages.FAULT).write_text(json.dumps({"fault": "away", "error": "no service"}))

    started, record = run({"code": 1})

    assert len(started) == 1
    assert (record["status"], record["reason"], record["error"]) == (
        "unstarted",
        "away",
        "no service",
    )


def test_a_step_that_broke_is_the_hosts_fault_and_its_last_words_are_told(run):
    _, record = run({"code": 1}, said=b"Traceback:\nImportError: no module\n")

    assert (record["status"], record["reason"]) == ("unstarted", "host")
    assert record["error"].endswith(": ImportError: no module")


@pytest.mark.parametrize("reason", ["cancel", "hand_back", "stale", "deleted"])
def test_who_ends_a_step_ends_the_attempt(run, reason):
    ended = {"status": "signaled", "code": None, "signal": 15, "reason": reason}

    assert run(ended)[1]["reason"] == reason
    assert run({}, {}, ended)[1]["reason"] == reason
    started, record = run({}, ended)
    assert (len(started), record["reason"]) == (2, reason)


@pytest.mark.parametrize("reason", ["timeout", "output"])
def test_of_a_command_that_was_ended_nothing_is_brought_back(run, reason):
    started, record = run({}, {"reason": reason})

    assert (len(started), record["reason"]) == (2, reason)


@pytest.mark.parametrize(
    "end",
    [
        {"code": 1},
        {"status": "signaled", "code": None, "signal": 9, "reason": "signal"},
        spool.unstarted("host", "no process"),
    ],
)
def test_a_last_step_that_breaks_does_not_change_how_the_command_ended(run, end):
    _, record = run({}, {"code": 4}, end)

    assert (record["code"], record["reason"]) == (4, "exit")
