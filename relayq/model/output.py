"""The format of a job's output, on the worker's disk as on the wire.

An output is a sequence of frames: one byte for the channel, eight for the wall clock, four for
the length, then that many bytes as the job wrote them. Frames keep the order in which stdout and
stderr were read, and a position in an output is a byte offset into this sequence. A torn last
frame (the writer was killed) is what `split` leaves over.

Standard library only: the shim imports this module.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

STDOUT = 1
STDERR = 2
HEADER = struct.Struct("!BdI")
MAX_FRAME = 65_536


class Frame(NamedTuple):
    """What the job wrote at once."""

    channel: int
    at: float
    data: bytes


def frame(channel: int, at: float, data: bytes) -> bytes:
    """Return the frame as bytes; `data` is at most `MAX_FRAME` long."""
    return HEADER.pack(channel, at, len(data)) + data


def split(raw: bytes) -> tuple[list[Frame], int]:
    """Return the whole frames of `raw` and how many of its bytes they take."""
    frames: list[Frame] = []
    position, end = 0, len(raw)
    while position + HEADER.size <= end:
        channel, at, length = HEADER.unpack_from(raw, position)
        body = position + HEADER.size
        if body + length > end:
            break
        frames.append(Frame(channel, at, raw[body : body + length]))
        position = body + length
    return frames, position


def whole(raw: bytes, begin_before: int | None = None) -> int:
    """Return how many bytes of `raw` are whole frames that begin before an offset, if given."""
    position, end = 0, len(raw)
    while position + HEADER.size <= end and (begin_before is None or position < begin_before):
        _, _, length = HEADER.unpack_from(raw, position)
        if position + HEADER.size + length > end:
            break
        position += HEADER.size + length
    return position


def only(frames: Iterable[Frame], channel: int) -> bytes:
    """Return what was written to one channel."""
    return b"".join(f.data for f in frames if f.channel == channel)


class Decoder:
    """Turns an output that arrives in pieces into frames."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Yield the frames that `piece` completes."""
        raw = self._left + piece
        frames, used = split(raw)
        self._left = raw[used:]
        return iter(frames)

    def reset(self) -> None:
        """Forget a torn frame, as after a gap."""
        self._left = b""
