"""Files on their way, as they are shown: how fast, how long yet, and lines where no bar can be."""

import pytest

from relayq import clock
from relayq.cli import transfers
from relayq.cli.transfers import Pace, Shown, coming_here
from relayq.model.files import FileOut

MB = 1_000_000


def test_what_was_there_before_does_not_count_as_fast():
    pace = Pace(200 * MB)

    assert pace.at(80 * MB, 10.0) == ""
    assert pace.at(90 * MB, 11.0) == "10 MB/s  11s"
    assert pace.at(90 * MB, 12.0) == "5 MB/s  22s"


@pytest.fixture
def now(monkeypatch):
    """The clock, to set."""
    at = [100.0]
    monkeypatch.setattr(clock, "boottime", lambda: at[0])
    return at


def test_without_a_terminal_a_line_says_what_was_moved(now, capsys):
    with Shown(quiet=False)("sending", "/x/talk.mov", 80 * MB) as progress:
        progress(0, 80 * MB)
        now[0] += 59
        progress(30 * MB, 80 * MB)
        now[0] += 2
        progress(40 * MB, 80 * MB)
        now[0] += 10

    assert capsys.readouterr().err.splitlines() == [
        "relayq: sending talk.mov 80 MB  50%  656 kB/s  1m01s",
        "relayq: sent talk.mov 80 MB in 1m11s",
    ]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ("100", "relayq: sending talk.mov 80 MB  #######-------  50%  10 MB/s  4s"),
        ("60", "relayq: sending talk.mov 80 MB   50%  10 MB/s  4s"),
        ("30", "relayq: sending talk.mov 80 "),
    ],
)
def test_on_a_terminal_one_line_is_drawn_over(columns, shown, now, capsys, monkeypatch):
    monkeypatch.setattr(transfers, "is_live", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    shows = Shown(quiet=False)

    with shows("sending", "/x/talk.mov", 80 * MB) as progress:
        progress(0, 80 * MB)
        now[0] += 4
        progress(40 * MB, 80 * MB)
        progress(41 * MB, 80 * MB)

    _, _, drawn, cleared = capsys.readouterr().err.split("\r")
    assert drawn.removesuffix("\x1b[K").startswith(shown)
    assert cleared == "\x1b[K"


@pytest.mark.parametrize(
    ("quiet", "what", "size"),
    [(True, "sending", 80 * MB), (False, "sending", 1000), (False, "reading", 80 * MB)],
)
def test_what_is_quick_or_unwanted_is_not_told(quiet, what, size, now, capsys):
    with Shown(quiet=quiet)(what, "talk.mov", size) as progress:
        if progress is not None:
            progress(size, size)

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("what", "said"),
    [("sending", "nothing was queued"), ("fetching", "stopped; what has come is kept")],
)
def test_who_interrupts_is_told_what_that_means(what, said, capsys):
    with pytest.raises(KeyboardInterrupt), Shown(quiet=False)(what, "talk.mov", 80 * MB):
        raise KeyboardInterrupt

    assert capsys.readouterr().err == f"relayq: {said}\n"


def test_a_files_name_can_not_move_the_cursor(now, capsys):
    with Shown(quiet=False)("sending", "/x/a\x1b[2Jb", 80 * MB):
        pass

    assert "\x1b" not in capsys.readouterr().err


def test_outputs_without_a_place_come_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    asked = coming_here({"cmd": "true", "files_out": ("a", "b:c", FileOut("d"))})

    assert [one.dest for one in asked["files_out"]] == [f"{tmp_path}/", "c", f"{tmp_path}/"]
    assert coming_here({"cmd": "true"}) == {"cmd": "true"}


def test_a_path_is_shown_in_its_shorter_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert transfers._from_here(f"{tmp_path}/a/b") == "a/b"
    assert transfers._from_here("/etc/hosts") == "/etc/hosts"
