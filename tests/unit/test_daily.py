"""The log of a worker that is a service."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

from relayq import clock
from relayq.host.daily import DailyLog, newest_log


@pytest.fixture
def days(monkeypatch):
    """Whose noon it is; a test sets the next one."""
    now = [datetime(2026, 11, 21, 12)]
    monkeypatch.setattr(clock, "now", lambda: now[0].timestamp())
    return now


def say(log: DailyLog, text: str) -> None:
    log.emit(logging.LogRecord("relayq", logging.INFO, "", 0, text, (), None))


def test_each_day_has_a_file_with_the_host_in_its_name(tmp_path, days):
    log = DailyLog(tmp_path, "pi4")
    say(log, "one")
    days[0] += timedelta(days=1)
    say(log, "two")
    log.close()

    assert (tmp_path / "pi4_20261121.log").read_text() == "one\n"
    assert (tmp_path / "pi4_20261122.log").read_text() == "two\n"
    assert newest_log(tmp_path) == tmp_path / "pi4_20261122.log"


def test_two_weeks_are_kept_and_nothing_else_is_touched(tmp_path, days):
    (tmp_path / "mine.log").touch()
    log = DailyLog(tmp_path, "pi4")
    for _ in range(20):
        say(log, "a day")
        days[0] += timedelta(days=1)
    log.close()

    kept = sorted(path.name for path in tmp_path.glob("pi4_*.log"))
    assert (kept[0], kept[-1], len(kept)) == ("pi4_20261127.log", "pi4_20261210.log", 14)
    assert (tmp_path / "mine.log").exists()


def test_after_midnight_the_newest_log_is_of_another_name_if_the_host_has_one(tmp_path):
    (tmp_path / "zebra_20261120.log").touch()
    (tmp_path / "ant_20261121.log").touch()

    assert newest_log(tmp_path) == tmp_path / "ant_20261121.log"
    assert newest_log(tmp_path / "none") is None


def test_a_disk_that_takes_no_file_breaks_nobody_who_has_something_to_say(tmp_path, days, capsys):
    log = DailyLog(tmp_path / "logs", "pi4")
    (tmp_path / "logs").rmdir()

    say(log, "lost")
    (tmp_path / "logs").mkdir()
    say(log, "kept")
    log.close()

    assert (tmp_path / "logs" / "pi4_20261121.log").read_text() == "kept\n"
    assert "FileNotFoundError" in capsys.readouterr().err
