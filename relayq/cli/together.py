"""The output of several jobs at once, as `logs -f @group` prints it: who wrote a line is before it.

One thread reads each job that goes on; what they read is written by the main thread alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Queue
from typing import TYPE_CHECKING

from relayq.cli import live, show
from relayq.cli.logs import print_piece
from relayq.cli.output import told_as_gap, write
from relayq.cli.texts import number_of
from relayq.errors import RelayqError
from relayq.model.output import Frame

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay

#: How many can be followed at once: each costs a thread and a connection.
MOST = 100
#: Frames that are read ahead of a slow terminal or pipe, of all jobs together.
_AHEAD = 256

#: What a job writes without a newline, such as a progress bar, is shown after so many bytes.
_LONGEST = 65_536

Read = Callable[["JobResult"], Iterator[Frame]]
Write = Callable[["JobResult", Frame], None]
_Piece = tuple["JobResult", Frame | RelayqError | None]


class Lines:
    """Writes whole lines, each with its job's id, or the name that it has here, before it."""

    def __init__(
        self,
        *,
        prefixed: bool,
        to: Callable[[list[Frame]], None] = write,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._to = to
        self._prefixed = prefixed
        self._names = names or {}
        self._begun: dict[tuple[str, int], bytes] = {}

    def write(self, result: JobResult, frame: Frame) -> None:
        """Write the lines that this frame completes."""
        before = self._begun.pop((result.id, frame.channel), b"")
        *lines, rest = (before + frame.data).split(b"\n")
        if len(rest) > _LONGEST:
            lines.append(rest)
        elif rest:
            self._begun[result.id, frame.channel] = rest
        self._put(result.id, frame.channel, lines)

    def end(self, result: JobResult) -> None:
        """Write what the job left without a newline, as a line."""
        for id, channel in [key for key in self._begun if key[0] == result.id]:
            self._put(id, channel, [self._begun.pop((id, channel))])

    def _put(self, id: str, channel: int, lines: Sequence[bytes]) -> None:
        prefix = f"{self._names.get(id, id)} | ".encode() if self._prefixed else b""
        data = b"".join(prefix + line + b"\n" for line in lines)
        if data:
            self._to([Frame(channel, 0.0, data)])


def follow(
    relay: Relay,
    results: Sequence[JobResult],
    read: Read,
    *,
    quiet: bool,
    as_json: bool = False,
    names: Mapping[str, str] | None = None,
) -> int:
    """Print the output of all these jobs until the last has ended; returns the exit code.

    `quiet` leaves the ids out, or the `names` that stand for them. As JSON each piece is a value,
    as it is for one job.
    """
    ended = [result for result in results if not result.record.state.is_waitable]
    going = [result for result in results if result not in ended]
    if len(going) > MOST:
        raise RelayqError(
            f"{number_of(len(going), 'job')} go on; at most {MOST} can be followed at once",
            hint="name fewer jobs, or look at them by turns: relayq ps --watch",
        )
    code = 0
    with live.watching(relay, [one.id for one in going], quiet=quiet or as_json) as meter:
        lines = Lines(prefixed=not quiet, to=meter.around(write), names=names)
        for result, piece in _pieces(relay, ended, going, read):
            if isinstance(piece, Frame) and as_json:
                print_piece(result, piece)
            elif isinstance(piece, Frame):
                lines.write(result, piece)
            else:
                lines.end(result)
                if piece is not None:
                    with meter.aside():
                        code = max(code, _tell(result, piece))
    return code


def _tell(result: JobResult, error: RelayqError) -> int:
    if told_as_gap(result.id, error):
        return 0
    show.remark(error.message)
    show.hint(error.hint or f"relayq show {result.id}")
    return error.exit_code


def _pieces(
    relay: Relay, ended: Sequence[JobResult], going: Sequence[JobResult], read: Read
) -> Iterator[_Piece]:
    """Yield what the jobs write, an error or None at the end of each."""
    for result in ended:
        yield from _read(result, read)
    pieces: Queue[_Piece] = Queue(_AHEAD)

    def put(result: JobResult) -> None:
        try:
            for piece in _read(result, read):
                pieces.put(piece)
        except Exception as error:
            # Who waits for the end of every job must not wait for ever.
            pieces.put((result, RelayqError(f"{result.id} can't be followed: {error!r}")))
            raise

    for result in going:
        threading.Thread(target=put, args=(result,), name=result.id, daemon=True).start()
    left = len(going)
    try:
        while left:
            result, piece = pieces.get()
            left -= not isinstance(piece, Frame)
            yield result, piece
    finally:
        if left:
            # The connection is closed under the threads that still read: no news for anybody.
            relay.session().say = lambda line: None


def _read(result: JobResult, read: Read) -> Iterator[_Piece]:
    try:
        for frame in read(result):
            yield result, frame
    except RelayqError as error:
        yield result, error
    else:
        yield result, None
