"""The format of outputs: frames keep every byte, in order, however they are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayq.model.output import (
    HEADER,
    MAX_FRAME,
    STDERR,
    STDOUT,
    Decoder,
    Frame,
    frame,
    only,
    split,
    whole,
)

frames_of = st.lists(
    st.builds(
        Frame,
        st.sampled_from([STDOUT, STDERR]),
        st.floats(0, 4e9),
        st.binary(max_size=40),
    ),
    max_size=8,
)


def encoded(frames):
    return b"".join(frame(*one) for one in frames)


@settings(max_examples=40)
@given(frames_of)
def test_frames_come_back_as_they_were(frames):
    raw = encoded(frames)

    assert split(raw) == (frames, len(raw))
    assert whole(raw) == len(raw)


@settings(max_examples=40)
@given(frames_of, st.integers(0, 500))
def test_a_torn_last_frame_is_left_over(frames, cut):
    raw = encoded(frames)[:cut]

    complete, used = split(raw)

    assert complete == frames[: len(complete)]
    assert encoded(complete) == raw[:used]
    assert whole(raw) == used
    assert len(raw) - used < HEADER.size + 40


@settings(max_examples=40)
@given(frames_of, st.lists(st.integers(0, 500)))
def test_a_decoder_gives_the_same_frames_for_any_pieces(frames, cuts):
    raw, decoder = encoded(frames), Decoder()
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    pieces = [raw[a:b] for a, b in zip(edges, edges[1:], strict=False)]

    assert [one for piece in pieces for one in decoder.feed(piece)] == frames


def test_a_decoder_forgets_a_torn_frame_when_told_of_a_gap():
    decoder = Decoder()
    list(decoder.feed(frame(STDOUT, 1.0, b"torn")[:-1]))

    decoder.reset()

    assert list(decoder.feed(frame(STDOUT, 2.0, b"new"))) == [Frame(STDOUT, 2.0, b"new")]


def test_one_channel_can_be_read_alone():
    frames = [Frame(STDOUT, 1.0, b"a"), Frame(STDERR, 2.0, b"x"), Frame(STDOUT, 3.0, b"b")]

    assert only(frames, STDOUT) == b"ab"
    assert only(frames, STDERR) == b"x"
    assert only([], STDOUT) == b""


@pytest.mark.parametrize("size", [0, 1, MAX_FRAME])
def test_a_frame_may_be_empty_or_as_long_as_the_limit(size):
    raw = frame(STDERR, 1.5, b"x" * size)

    assert len(raw) == HEADER.size + size
    assert split(raw) == ([Frame(STDERR, 1.5, b"x" * size)], len(raw))


def test_the_header_is_the_documented_one():
    assert HEADER.size == 13
    assert frame(STDOUT, 0.0, b"hi") == b"\x01" + bytes(8) + b"\x00\x00\x00\x02hi"
