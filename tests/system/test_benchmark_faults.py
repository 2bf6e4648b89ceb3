"""The table of faults can be had again: a quick row runs, and what was seen is told as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import options
from benchmarks.faults.seen import Seen, most_at_once, read
from benchmarks.faults.systems import State
from tests.conftest import RedisServer

ROOT = Path(__file__).parent.parent.parent
STARTED = State("STARTED", is_final=False, is_success=False)
SUCCESS = State("SUCCESS", is_final=True, is_success=True)


@pytest.mark.system
def test_a_row_shows_what_celery_and_relayq_do_in_the_same_fault(redis7: RedisServer):
    environ = {**os.environ, "PATH": f"{redis7.binary.parent}:{os.environ['PATH']}"}
    only = ["--only", "Celery", "--only", "relayq"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--json", *only, "cancel"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
    )

    assert ran.returncode == 0, ran.stderr
    [row] = json.loads(ran.stdout)["rows"]
    assert row["seen"]["relayq"]["words"] == "it didn't run; cancelled", ran.stderr
    assert row["seen"]["Celery"]["words"] == "it ran; SUCCESS", ran.stderr


def test_a_row_or_a_system_that_does_not_exist_is_named(capsys):
    for words, named in ((["nonsense"], "no such row"), (["--only", "cron"], "no such system")):
        with pytest.raises(SystemExit):
            options(words)
        assert named in capsys.readouterr().err


def test_copies_that_ran_side_by_side_are_counted(tmp_path):
    journal = tmp_path / "journal"
    journal.write_text("start 1\nstart 2\nend 1\nstart 3\nend 2\nend 3\n")

    seen = read(journal, SUCCESS, 20.0, 0, at_once=most_at_once(journal))

    assert str(seen) == "SUCCESS after 20 s; 3 starts, 2 at a time"


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (0, "lost: STARTED for ever (looked for 30 s, no message is left); 1 start"),
        (1, "still STARTED after 30 s; 1 start"),
        (None, "still STARTED after 30 s; 1 start"),
    ],
)
def test_only_a_job_that_nothing_can_start_again_is_called_lost(held, words):
    assert str(Seen(STARTED, 30.0, starts=1, ends=0, held=held)) == words


def test_an_end_that_is_not_what_the_command_came_to_is_said():
    lie = State("FAILURE", is_final=True, is_success=False, detail="ConnectionError")
    seen = Seen(lie, 7.1, starts=1, ends=1, held=0)

    assert "FAILURE (ConnectionError) after 7.1 s" in str(seen)
    assert "though the command ended well" in str(seen)
