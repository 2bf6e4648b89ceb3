"""Kinds: what can be run, declared; and the one that runs a command."""

import pytest

from relayq.errors import RelayqError
from relayq.kinds import Command, Ended, HostFacts, Verdict, find, names
from relayq.kinds.command import CommandPayload, expand
from relayq.model.jobs import JobState

PI4 = HostFacts(name="pi4", home="/home/pi")


@pytest.fixture
def declared():
    return find("run_command")


def test_kinds_are_found_by_name(declared):
    assert declared.name == "run_command"
    assert find("run_command") is declared
    assert "run_command" in names()


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(RelayqError, match="no such kind: 'transmogrify'; there is .*run_command"):
        find("transmogrify")


# The payload


@pytest.mark.parametrize("cmd", ["echo hi", ["echo", "hi"], ["echo", ""]])
def test_a_payload_is_read_from_plain_values(declared, cmd):
    payload = declared.read_payload({"cmd": cmd, "cwd": "~/src", "env": {"A": "1"}})

    assert payload == CommandPayload(cmd=cmd, cwd="~/src", env={"A": "1"})


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({}, "run_command needs 'cmd'"),
        ({"cmd": "x", "shell": True}, "has no field 'shell'; it has cmd, cwd, env, stdin"),
        ({"cmd": ""}, "the command is empty"),
        ({"cmd": "  \n"}, "the command is empty"),
        ({"cmd": []}, "the command is empty"),
        ({"cmd": [""]}, "the command is empty"),
        ({"cmd": [1, 2]}, "must be text or a list of texts"),
        ({"cmd": 5}, "run_command: "),
        ({"cmd": None}, "run_command: "),
        ({"cmd": "a\0b"}, "NUL"),
        ({"cmd": "a", "cwd": "/\0"}, "NUL"),
        ({"cmd": "a", "env": {"A": "\0"}}, "NUL"),
        ({"cmd": "a", "env": {"A=B": "c"}}, "can't be empty or hold '='"),
        ({"cmd": "a", "env": {"": "c"}}, "can't be empty or hold '='"),
        ({"cmd": "a", "env": {"A": 5}}, "run_command: "),
        ({"cmd": "a", "env": ["A"]}, "run_command: "),
        ({"cmd": "a", "cwd": 5}, "run_command: "),
        ({"cmd": "a", "stdin": 5}, "run_command: "),
    ],
)
def test_a_wrong_payload_is_refused_with_the_reason(declared, raw, complaint):
    with pytest.raises(RelayqError, match=complaint):
        declared.read_payload(raw)


# The plan


def plan(declared, **fields):
    return declared.kind.plan(declared.read_payload(fields), PI4)


def test_text_is_a_line_for_the_shell(declared):
    assert plan(declared, cmd="echo $HOME | wc") == Command(
        argv=("/bin/sh", "-c", "echo $HOME | wc"), cwd="/home/pi"
    )


def test_a_list_is_a_program_without_a_shell(declared):
    assert plan(declared, cmd=["echo", "$HOME; rm"]).argv == ("echo", "$HOME; rm")


def test_environment_and_standard_input_are_passed_on(declared):
    command = plan(declared, cmd="cat", env={"A": "b"}, stdin="grüße")

    assert command.env == {"A": "b"}
    assert command.stdin == "grüße".encode()


def test_an_empty_standard_input_is_not_a_missing_one(declared):
    assert plan(declared, cmd="cat", stdin="").stdin == b""
    assert plan(declared, cmd="cat").stdin is None


@pytest.mark.parametrize(
    ("cwd", "directory"),
    [
        (None, "/home/pi"),
        ("~", "/home/pi"),
        ("~/", "/home/pi/"),
        ("~/src", "/home/pi/src"),
        ("src", "/home/pi/src"),
        ("/tmp", "/tmp"),
        ("~other", "/home/pi/~other"),
    ],
)
def test_directories_start_at_the_workers_home(cwd, directory):
    assert expand(cwd, "/home/pi") == directory


# The verdict


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        (Ended(0, None, "exit"), Verdict(JobState.SUCCEEDED, "exit")),
        (Ended(3, None, "exit"), Verdict(JobState.FAILED, "exit")),
        (Ended(None, 9, "signal"), Verdict(JobState.FAILED, "signal")),
        (Ended(0, None, "timeout"), Verdict(JobState.FAILED, "timeout")),
        (
            Ended(None, None, "spawn", "no such directory"),
            Verdict(JobState.FAILED, "spawn", error="no such directory"),
        ),
    ],
)
def test_exit_code_zero_is_success_and_nothing_else_is_judged(declared, ended, verdict):
    assert declared.kind.interpret(ended) == verdict
