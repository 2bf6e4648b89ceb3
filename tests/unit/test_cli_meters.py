"""How far jobs are, as it is shown: bars, lines, and a live line beside what the jobs write."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest

from relayq.cli import live, meters, show
from relayq.cli.live import Meter
from relayq.model.jobs import JobRecord, JobState
from relayq.model.output import STDERR, STDOUT, Frame
from relayq.model.progress import Progress
from relayq.store.progress import Sight

RUNNING = Sight("3f2a00000000", JobState.RUNNING, "mini", "any", 1000.0, None, None)
HALF = Progress(0.5, "second pass", eta=190.0, rate="2.4x", at=1000.0)
QUEUED = Sight("9b0000000000", JobState.QUEUED, None, "host.pi4", None, None, None)
ENDED = replace(RUNNING, id="770000000000", state=JobState.FAILED)


@pytest.mark.parametrize(
    ("fraction", "drawn", "said"),
    [
        (0.0, "----", "  0%"),
        (0.29, "#---", " 29%"),
        (0.5, "##--", " 50%"),
        (0.999, "###-", " 99%"),
        (1.0, "####", "100%"),
    ],
)
def test_a_bar_is_full_at_the_end_only(fraction, drawn, said):
    assert (meters.bar(fraction, 4), meters.percent(fraction)) == (drawn, said)


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (HALF, "###---  50%  eta 3m  second pass"),
        (replace(HALF, text=""), "###---  50%  eta 3m  2.4x"),
        (Progress(0.62), "####--  62%"),
        (Progress(None, "waits for the scanner"), "waits for the scanner"),
        (Progress(None, eta=30.0, at=1010.0), "eta 30s"),
        (Progress(0.1, eta=5.0, at=900.0), "#-----  10%"),
    ],
)
def test_ps_has_room_for_the_most_of_it(progress, shown):
    assert meters.cell(progress, now=1010.0) == shown


def test_ps_says_how_far_a_paused_job_is():
    record = JobRecord("j1", "run_command", JobState.RUNNING, "any", 5, 0.0, progress=HALF)
    paused = replace(record, paused="its owner is active")

    cells = show.job_rows([record, paused, replace(paused, progress=None)], 1000.0, ["PROGRESS"])

    assert cells == [
        ["###---  50%  eta 3m  second pass"],
        ["50%  its owner is active"],
        ["its owner is active"],
    ]


def test_show_says_when_it_was_said():
    assert meters.described(HALF, 1010.0) == (
        "#######-------  50%  2.4x  eta 3m00s  second pass  (10s ago)"
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "mini  1m51s"),
        ({"progress": HALF}, "mini  1m51s  #######-------  50%  2.4x  eta 1m19s  second pass"),
        ({"progress": HALF, "paused": "too hot"}, "mini  1m51s   50%  paused: too hot"),
        ({"state": JobState.LOST}, "mini  1m51s  its host doesn't answer"),
        ({"progress": Progress(None, "\x1b[2Jowned")}, "mini  1m51s  ?owned"),
    ],
)
def test_the_line_of_a_job_has_its_host_and_its_time_and_what_it_says(changes, line):
    assert meters.line_of(replace(RUNNING, **changes), 1111.0, 7.0) == (
        f"relayq: 3f2a00000000  {line}"
    )


def test_the_line_of_a_job_that_waits_says_for_whom():
    told = [
        meters.line_of(replace(QUEUED, **changes), 1111.0, 7.0).removeprefix("relayq: 9b0000000000")
        for changes in ({}, {"queue": "needs.ffmpeg"}, {"state": JobState.SCHEDULED})
    ]

    assert told == ["  waiting for pi4  7s", "  waiting for a host  7s", "  scheduled  7s"]


def test_several_jobs_have_one_total():
    seen = {one.id: one for one in (replace(RUNNING, progress=HALF), QUEUED, ENDED)}

    line = meters.total_line([*seen, "unknown"], seen, 60.0, 0.25)

    assert line == (
        "relayq: 4 jobs  1 ended, 1 running, 1 waiting  1m00s  #######-------  50%  eta 2m00s"
    )
    plain = {one.id: one for one in (RUNNING, QUEUED)}
    assert meters.total_line([*plain], plain, 9.9, None) == (
        "relayq: 2 jobs  1 running, 1 waiting  9s"
    )


class Screen(io.StringIO):
    """A stderr that is a terminal, or isn't."""

    def __init__(self, is_terminal):
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


class Watched:
    """A meter of one job whose record a test writes, on a clock that a test sets."""

    def __init__(self, monkeypatch, *, is_live):
        self.screen = Screen(is_live)
        self.now = 0.0
        monkeypatch.setattr(live, "sys", SimpleNamespace(stderr=self.screen))
        monkeypatch.setattr(live, "is_live", lambda: is_live)
        monkeypatch.setattr(live, "_is_in_front", lambda: True)
        monkeypatch.setattr(live, "_is_shared", lambda: True)
        monkeypatch.setattr(live, "_columns", lambda: 60)
        monkeypatch.setattr(live.clock, "boottime", lambda: self.now)
        monkeypatch.setattr(live.clock, "now", lambda: 1000.0 + self.now)
        self.meter = Meter(lambda ids: {RUNNING.id: self.sight}, [RUNNING.id])
        self.sight = RUNNING
        self.write = self.meter.around(lambda frames: [self._put(f) for f in frames])

    def _put(self, frame):
        self.screen.write(frame.data.decode())

    def says(self, fraction, text=""):
        self.sight = replace(RUNNING, progress=Progress(fraction, text, at=1000.0 + self.now))

    def after(self, seconds):
        """Let time pass, and return what was written since the last look."""
        self.now += seconds
        self.meter._seen = self.meter._look(self.meter._ids)
        self.meter._tell(self.now)
        return self.taken()

    def taken(self):
        seen = self.screen.getvalue()
        self.screen.seek(0)
        self.screen.truncate()
        return seen


@pytest.fixture
def terminal(monkeypatch):
    return Watched(monkeypatch, is_live=True)


@pytest.fixture
def pipe(monkeypatch):
    return Watched(monkeypatch, is_live=False)


def test_a_line_is_drawn_over_the_one_before_and_taken_away_for_the_output(terminal):
    terminal.says(0.5)
    assert terminal.after(1) == "\rrelayq: 3f2a00000000  mini  1s  #######-------  50%\x1b[K"

    terminal.write([Frame(STDOUT, 0.0, b"one\n")])
    terminal.write([Frame(STDERR, 0.0, b"two\n")])

    assert terminal.taken() == "\r\x1b[Kone\ntwo\n"
    assert terminal.after(1).startswith("\rrelayq: ")
    terminal.meter.close()
    assert terminal.taken() == "\r\x1b[K"


def test_a_line_that_a_job_has_begun_is_never_drawn_over(terminal):
    terminal.says(0.5)
    for begun in (b"Password: ", b"frame=1\r"):
        for channel in (STDOUT, STDERR):
            terminal.write([Frame(channel, 0.0, begun)])
            assert terminal.after(9) == begun.decode()
            terminal.write([Frame(channel, 0.0, b"\n")])
            assert "relayq: " in terminal.after(1)
            terminal.write([Frame(STDOUT, 0.0, b"")])
            terminal.taken()


def test_a_job_that_says_nothing_gets_its_line_after_a_silence(terminal):
    assert terminal.after(1) == ""
    terminal.write([Frame(STDOUT, 0.0, b"x\n")])
    terminal.taken()
    assert terminal.after(1.5) == ""
    assert terminal.after(1) == "\rrelayq: 3f2a00000000  mini  3s\x1b[K"


def test_a_job_that_waits_gets_its_line_at_once(terminal):
    terminal.sight = replace(QUEUED, id=RUNNING.id)
    assert terminal.after(1) == "\rrelayq: 3f2a00000000  waiting for pi4  1s\x1b[K"


def test_the_line_is_never_wider_than_the_terminal(terminal):
    terminal.says(0.5, "x" * 100)
    line = terminal.after(1).removeprefix("\r").removesuffix("\x1b[K")
    assert len(line) == 59


def test_without_a_terminal_there_is_a_line_at_each_tenth(pipe):
    told = []
    for percent in range(0, 101, 4):
        pipe.says(percent / 100)
        told += pipe.after(1).splitlines()

    assert [line.split()[-1] for line in told] == [
        *("12%", "20%", "32%", "40%", "52%", "60%", "72%", "80%", "92%", "100%")
    ]
    assert all(line.startswith("relayq: 3f2a00000000  mini  ") for line in told)


def test_without_a_terminal_slow_news_comes_once_a_minute(pipe):
    pipe.says(0.31)
    assert pipe.after(1)
    told = []
    for second in range(300):
        pipe.says(0.31 + second / 1e5)
        told += pipe.after(1).splitlines()

    assert len(told) == 5
    # No news is no line.
    assert "".join(pipe.after(1) for _ in range(200)) == ""


def test_without_a_terminal_a_job_that_says_nothing_costs_no_line(pipe):
    assert "".join(pipe.after(10) for _ in range(100)) == ""


def test_without_a_terminal_a_word_without_a_number_is_told_at_once(pipe):
    pipe.says(None, "waits for the scanner")
    assert pipe.after(1) == "relayq: 3f2a00000000  mini  1s  waits for the scanner\n"
    pipe.says(None, "waits for the printer")
    assert pipe.after(1) == ""


def test_another_attempt_is_told_from_its_beginning(pipe):
    pipe.says(0.95)
    assert pipe.after(1)
    pipe.says(0.0)
    assert pipe.after(1) == ""
    pipe.says(0.1)
    assert pipe.after(1)
