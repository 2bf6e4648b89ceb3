"""What commands look like on a terminal: widths, colours, and a job's own text made harmless."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.system.commands import Terminal, begin, relayq, submit

pytestmark = pytest.mark.system

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RED = "\x1b[31m"


@pytest.fixture
def cli(shared_fleet):
    """A fleet of one host, called here, that the environment points at."""
    return shared_fleet


def screen(*arguments: str, columns: int = 80, **environ: str) -> str:
    terminal = Terminal(*arguments, columns=columns, **environ)
    assert terminal.finish() == 0, terminal.seen
    return terminal.seen


def test_a_long_command_is_cut_to_the_terminals_width(cli):
    submit("--name", "wide", "true " + "wide " * 100)
    relayq("wait", "wide")

    for columns in (40, 80, 200):
        lines = ESCAPES.sub("", screen("ps", "--filter", "name=wide", columns=columns)).splitlines()
        assert len(lines) == 3, lines
        assert len(lines[1]) <= columns
        assert "…" in lines[1] or "..." in lines[1]


def test_states_have_colours_on_a_terminal_only_and_not_against_a_persons_will(cli):
    submit("--name", "bad", "exit 1")
    relayq("wait", "bad")

    assert f"{RED}failed" in screen("ps")
    assert "\x1b" not in screen("--no-color", "ps")
    assert "\x1b" not in screen("ps", NO_COLOR="1")
    assert "\x1b" not in screen("ps", TERM="dumb")
    assert "\x1b" not in relayq("ps").stdout


def test_a_jobs_own_text_cant_play_with_the_terminal(cli):
    evil = "\x1b[2J\x1b]0;owned\x07\x1b[31m[bold]"
    submit("--name", "evil", "--note", "on one line", f"true '{evil}'\n\rtrue \x9b2J")
    relayq("wait", "evil")

    for seen in (screen("ps"), screen("show", "evil"), relayq("show", "evil").stdout):
        assert "[bold]" in seen
        assert not re.search(r"\x1b\[2J|\x1b\]|\x9b|\x07", seen)
        assert f"{RED}[bold]" not in seen


def test_a_jobs_output_reaches_the_terminal_as_it_is(cli):
    terminal = Terminal("run", "-q", "printf '\\033[31mred\\n'")

    assert terminal.finish() == 0
    assert terminal.seen == f"{RED}red\r\n"


def test_ps_chooses_columns_and_order(cli):
    for number in (2, 1, 3):
        submit("--name", f"n{number}", "--group", "sorted", "true")
    relayq("wait", "@sorted")

    asked = ("--filter", "group=sorted", "--sort", "name", "--columns", "name,group")
    lines = relayq("ps", *asked).stdout.splitlines()

    assert [line.split() for line in lines[:4]] == [
        ["NAME", "GROUP"],
        *[[f"n{number}", "sorted"] for number in (1, 2, 3)],
    ]


def test_ps_watches_until_an_interrupt(cli):
    terminal = Terminal("ps", "--watch", "--filter", "name=watched")
    terminal.sees("failed")

    submit("--name", "watched", "exit 7")
    terminal.sees("exit 7")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.finish() == 0
    assert "Traceback" not in terminal.seen


def test_ps_watches_as_json_lines(cli):
    command = begin("ps", "--watch", "--json", "--filter", "name=lines")
    before = json.loads(command.stdout.readline())

    id = submit("--name", "lines", "true")
    after = json.loads(command.stdout.readline())
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=10)

    assert (before["schema"], before["jobs"]) == (1, [])
    assert [job["id"] for job in after["jobs"]] == [id]
    assert command.returncode == 0
