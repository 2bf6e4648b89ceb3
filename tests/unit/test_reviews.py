"""What is known of a job that waits for a person."""

from __future__ import annotations

import pytest

from relayq.model.hosts import Host
from relayq.model.jobs import JobRecord, JobState
from relayq.model.moves import MOVES
from relayq.model.output import STDERR, STDOUT, Frame
from relayq.model.reviews import VERDICTS, has_rebooted, last_line, may_still_run

HOST = Host("pi4", "install-1", "boot-1", slots=2, seen_at=0.0, is_online=True)


def lost(boot: str | None = "install-1/boot-1", *, may_run: bool = True) -> JobRecord:
    return JobRecord(
        "abc100000000",
        "run_command",
        JobState.NEEDS_HUMAN,
        "any",
        5,
        0.0,
        host="pi4",
        reason="lost",
        boot=boot,
        may_run=may_run,
    )


def test_each_verdict_is_a_move_that_a_waiting_job_can_make():
    assert set(VERDICTS.values()) <= MOVES[JobState.NEEDS_HUMAN]


@pytest.mark.parametrize(
    ("record", "host", "rebooted"),
    [
        (lost(), HOST, False),
        (lost("install-1/boot-0"), HOST, True),
        (lost("install-0/boot-0"), HOST, None),
        (lost(), None, None),
        (lost(None), HOST, None),
    ],
)
def test_a_reboot_is_known_of_the_same_machine_only(record, host, rebooted):
    assert has_rebooted(record, host) is rebooted


@pytest.mark.parametrize(
    ("record", "host", "may_run"),
    [
        (lost(), HOST, True),
        (lost(), None, True),
        (lost("install-0/boot-0"), HOST, True),
        (lost("install-1/boot-0"), HOST, False),
        (lost(may_run=False), HOST, False),
    ],
)
def test_only_a_report_or_a_reboot_says_that_an_attempt_is_gone(record, host, may_run):
    assert may_still_run(record, host) is may_run


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        ([], ""),
        ([b"one\ntwo\n"], "two"),
        ([b"one\n", b" \n\n"], "one"),
        ([b"10%\r20%\r30%"], "30%"),
        ([b"whole\r\n"], "whole"),
        ([b"tor", b"n\n"], "torn"),
        ([b"\xff\n"], "\ufffd"),
    ],
)
def test_the_last_line_is_the_last_that_says_something(texts, line):
    assert last_line([Frame(STDOUT, 0.0, text) for text in texts]) == line


def test_the_last_line_may_come_by_either_channel():
    frames = [Frame(STDOUT, 0.0, b"done\n"), Frame(STDERR, 0.0, b"but see this\n")]

    assert last_line(frames) == "but see this"
