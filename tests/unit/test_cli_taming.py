"""What of a job's output may reach a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayq.cli.taming import Tamer


def tamed(*pieces: bytes) -> bytes:
    tamer = Tamer()
    return b"".join(tamer.feed(piece) for piece in pieces)


@pytest.mark.parametrize(
    "text",
    [
        b"plain\n\ttext\r\n",
        "Grüße, 你好, \U0001f600\n".encode(),
        b"\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m",
        b"10 %\r20 %\x1b[K\r\x1b[2K100 %\n",
        b"caf\xe9, no UTF-8\n",
    ],
)
def test_text_and_colours_and_a_bar_on_its_line_get_through(text):
    assert tamed(text) == text


@pytest.mark.parametrize(
    "sequence",
    [
        b"\x1b]0;title\x07",
        b"\x1b]52;c;cm0gLXJm\x07",
        b"\x1b]52;c;cm0gLXJm\x1b\\",
        b"\x1b]8;;http://evil.example\x1b\\",
        b"\x1bP+q544e\x1b\\",
        b"\x1b_apc\x1b\\",
        b"\x1b^pm\x1b\\",
        b"\x1bXsos\x1b\\",
        b"\x1b[6n",
        b"\x1b[c",
        b"\x1b[?1049h",
        b"\x1b[2J",
        b"\x1b[H",
        b"\x1b[3A",
        b"\x1b[21t",
        b"\x1b[>4;1m",
        b"\x1bc",
        b"\x1b(0",
        b"\x1b#8",
        b"\x07\x00\x05\x0e\x0f\x7f",
        "\x9b6n".encode(),
        "\x9d0;title\x9c".encode(),
        b"\x9b\x90\x85",
        "‮⁦".encode(),
    ],
)
def test_what_acts_on_a_terminal_does_not(sequence):
    whole = tamed(b"before" + sequence + b"after")

    assert b"\x1b" not in whole
    assert whole.startswith(b"before")
    assert whole.endswith(b"after")
    assert not {*range(8), *range(14, 32), 127} & {*whole}
    # Cut anywhere, it is no other.
    for cut in range(len(sequence) + 1):
        assert tamed(b"before" + sequence[:cut], sequence[cut:] + b"after") == whole


@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_bytes_whatsoever_leave_more_than_a_colour(data, cut):
    import re

    shown = tamed(data[:cut], data[cut:])

    rest = re.sub(rb"\x1b\[[0-9;:]*m|\x1b\[[0-2]?K", b"", shown)
    assert not {*range(8), 11, 12, *range(14, 32), 127} & {*rest}


def test_a_sequence_that_never_ends_does_not_swallow_what_follows():
    tamer = Tamer()
    shown = tamer.feed(b"\x1b]0;") + b"".join(tamer.feed(b"x" * 1000) for _ in range(6))

    assert b"xxx" in shown
