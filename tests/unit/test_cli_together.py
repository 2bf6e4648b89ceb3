"""Several outputs at once: whole lines, each after its job's id."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from relayq.cli.together import Lines
from relayq.model.output import STDERR, STDOUT, Frame

ONE, TWO = SimpleNamespace(id="one"), SimpleNamespace(id="two")


@pytest.fixture
def lines():
    return Lines(prefixed=True)


def frame(data: bytes, channel: int = STDOUT) -> Frame:
    return Frame(channel, 0.0, data)


def test_lines_that_arrive_in_pieces_stay_whole(lines, capfdbinary):
    lines.write(ONE, frame(b"a\nb"))
    lines.write(TWO, frame(b"x\n"))
    lines.write(ONE, frame(b"c\n\n"))

    assert capfdbinary.readouterr().out == b"one | a\ntwo | x\none | bc\none | \n"


def test_the_channels_of_a_job_are_kept_apart(lines, capfdbinary):
    lines.write(ONE, frame(b"out"))
    lines.write(ONE, frame(b"err\n", STDERR))
    lines.end(ONE)

    assert capfdbinary.readouterr() == (b"one | out\n", b"one | err\n")


def test_what_has_no_newline_is_a_line_at_the_end_or_when_it_is_long(lines, capfdbinary):
    for _ in range(3):
        lines.write(ONE, frame(b"." * 40_000))
    lines.write(TWO, frame(b"two"))
    lines.end(ONE)

    first, second, rest = capfdbinary.readouterr().out.split(b"\n")
    assert (len(first), second, rest) == (80_006, b"one | " + b"." * 40_000, b"")
    lines.end(TWO)
    assert capfdbinary.readouterr().out == b"two | two\n"


def test_without_the_ids_bytes_are_as_they_were(capfdbinary):
    lines = Lines(prefixed=False)
    lines.write(ONE, frame(b"\xff\0\r\n"))
    lines.end(ONE)

    assert capfdbinary.readouterr().out == b"\xff\0\r\n"
