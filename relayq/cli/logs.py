"""What jobs wrote, afterwards or as they go on: what `logs` and `result` print.

Several that are followed at once are in `relayq.cli.together`.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from relayq.agentjobs import value_of
from relayq.cli import live, show
from relayq.cli.options import is_offline
from relayq.cli.output import gaps_told, write
from relayq.cli.texts import inert, rfc3339
from relayq.errors import Conflict, OutputUnavailable
from relayq.model.output import STDERR, STDOUT, Decoder, Frame, only
from relayq.parsing import size_text
from relayq.speechjobs import text_of

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.store.logs import Piece


def print_all(
    relay: Relay,
    results: Sequence[JobResult],
    *,
    follow: bool,
    tail: int | None,
    is_one: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Print what these jobs wrote, if followed all at once; returns the exit code."""
    if follow and len(results) > 1:
        from relayq.cli import together

        read = partial(_frames, follow=True, tail=tail)
        return together.follow(relay, results, read, quiet=quiet, as_json=as_json)
    if as_json:
        _print_json(results, is_one=is_one, follow=follow, tail=tail)
        return 0
    codes = []
    for result in results:
        if len(results) > 1 and not quiet:
            show.remark(f"{result.id}  {inert(show.what_of(result.record.spec))}")
        codes.append(_print(relay, result, follow=follow, tail=tail, quiet=quiet))
    return max(codes, default=0)


def _print(relay: Relay, result: JobResult, *, follow: bool, tail: int | None, quiet: bool) -> int:
    record = result.record
    if record.attempt == 0 and not follow:
        if not quiet:
            yet = "" if record.state.is_final else " yet"
            show.remark(f"{result.id} is {record.state.value}; there is no output{yet}")
        return 0
    if not follow and not _is_at_hand(result) and is_offline(relay, record.host or ""):
        return _kept(relay, result, tail, f"{record.host} is offline")
    if follow and not quiet:
        from relayq.cli import waits

        result.on_silence = waits.teller(relay, result)
    try:
        with (
            gaps_told(result.id),
            live.watching(relay, [result.id], quiet=quiet or not follow) as meter,
        ):
            put = meter.around(write)
            for frame in _frames(result, follow=follow, tail=tail):
                put([frame])
    except OutputUnavailable as error:
        if follow:
            raise
        return _kept(relay, result, tail, error.message)
    return 0


def _print_json(
    results: Sequence[JobResult], *, is_one: bool, follow: bool, tail: int | None
) -> None:
    """Print outputs as one value, or one that goes on as a line for each piece."""
    read = partial(_frames, follow=follow, tail=tail)
    if not follow:
        shown = [{"id": one.id, "output": list(map(_frame_as_json, read(one)))} for one in results]
        show.print_json(shown[0] if is_one else {"jobs": shown})
        return
    for result in results:
        for frame in read(result):
            print_piece(result, frame)


def print_piece(result: JobResult, frame: Frame) -> None:
    """Print a piece of an output as a line of JSON."""
    show.print_json({"id": result.id, **_frame_as_json(frame)})
    sys.stdout.flush()


def _frame_as_json(frame: Frame) -> dict[str, str]:
    channel = "stderr" if frame.channel == STDERR else "stdout"
    try:
        data = {"text": frame.data.decode()}
    except UnicodeDecodeError:
        data = {"base64": base64.b64encode(frame.data).decode("ascii")}
    return {"channel": channel, "at": rfc3339(frame.at), **data}


def print_results(results: Sequence[JobResult], *, is_one: bool, quiet: bool, as_json: bool) -> int:
    """Print the results of these jobs and nothing else; returns the exit code."""
    shown: list[dict[str, Any]] = []
    codes = [_result(one, shown if as_json else None, quiet=quiet) for one in results]
    if as_json:
        show.print_json(shown[0] if is_one else {"jobs": shown})
    return codes[0] if len(codes) == 1 else int(any(codes))


def _result(one: JobResult, shown: list[dict[str, Any]] | None, *, quiet: bool) -> int:
    record = one.record
    if not record.state.is_final:
        raise Conflict(
            f"{one.id} is {record.state.value}; it has no result yet",
            hint=f"relayq wait {one.id} && relayq result {one.id}",
        )
    outcome = one.outcome()
    value = outcome.result if outcome is not None else None
    answer = one.agent
    if answer is not None and shown is None:
        text = value_of(answer)
        value = f"{text}\n" if isinstance(text, str) and text else text
    if one.transcripts and shown is None:
        value = text_of(one.transcripts)
    raw = only(one.logs(), STDOUT) if value is None else _bytes_of(value)
    if shown is not None:
        plain = raw.decode(errors="replace") if value is None else value
        shown.append({"id": one.id, "state": record.state.value, "result": plain})
    else:
        write([Frame(STDOUT, 0.0, raw)])
    line = show.verdict(record, outcome)
    if line and not quiet:
        show.remark(line)
    from relayq.model.ends import exit_status

    return exit_status(record)


def _bytes_of(value: Any) -> bytes:
    """Return what a kind returned: a text as it is, anything else as JSON."""
    return value.encode() if isinstance(value, str) else f"{json.dumps(value)}\n".encode()


def _is_at_hand(result: JobResult) -> bool:
    """Whether the broker holds the whole output."""
    outcome = None if result.record.state.is_waitable else result.outcome()
    return outcome is not None and outcome.is_whole


def _frames(result: JobResult, *, follow: bool, tail: int | None) -> Iterator[Frame]:
    if tail is None:
        yield from result.logs(follow=follow)
        return
    so_far, cut = _so_far(result)
    yield from last_lines(so_far, tail)
    if cut is not None:
        raise cut
    if follow:
        # The same frames come again from the start, unless another attempt has begun.
        before = iter(so_far)
        for frame in result.logs(follow=True):
            if next(before, None) != frame:
                before = iter(())
                yield frame


def _so_far(result: JobResult) -> tuple[list[Frame], OutputUnavailable | None]:
    """Return all that there is of an output, and the error of one that a full disk cut."""
    frames: list[Frame] = []
    try:
        for frame in result.logs():
            frames.append(frame)
    except OutputUnavailable as error:
        if not error.missing:
            raise
        return frames, error
    return frames, None


def last_lines(frames: list[Frame], count: int) -> list[Frame]:
    """Return the end of an output: so many lines, stdout and stderr taken together."""
    kept: list[Frame] = []
    # The newline at the very end closes the last line, it doesn't begin another.
    wanted = count + 1 if frames and frames[-1].data.endswith(b"\n") else count
    for frame in reversed(frames if count else []):
        lines = frame.data.count(b"\n")
        if lines >= wanted:
            if rest := _after(frame.data, wanted):
                kept.append(frame._replace(data=rest))
            break
        wanted -= lines
        kept.append(frame)
    return kept[::-1]


def _after(data: bytes, newlines: int) -> bytes:
    """Return what follows the newline that is that many from the end."""
    end = len(data)
    for _ in range(newlines):
        end = data.rindex(b"\n", 0, end)
    return data[end + 1 :]


def _kept(relay: Relay, result: JobResult, tail: int | None, why: str) -> int:
    """Print what the broker kept of an output, the gaps marked; returns the exit code."""
    record = result.record
    outcome = None if record.state.is_waitable else result.outcome()
    parts, position = _parts(relay.session().store.logs.read(record.id, record.attempt))
    missing = outcome.output_bytes - position if outcome is not None else 0
    if tail is not None:
        last = parts[-1][1]
        # The end is enough when it holds all the lines that were asked for.
        is_whole = not missing and sum(frame.data.count(b"\n") for frame in last) > tail
        parts = [(0 if is_whole else parts[-1][0], last_lines(last, tail))]
    for gap, frames in [*parts, (missing, [])]:
        if gap:
            show.remark(f"... {size_text(gap)} are only on {record.host}")
        write(frames)
    if outcome is not None and not missing and not any(gap for gap, _ in parts):
        return 0
    show.remark(f"{why}; this is what the broker kept of the output of {record.id}")
    show.hint(f"relayq status, and when it is back: relayq logs {record.id}")
    return OutputUnavailable.exit_code


def _parts(pieces: Iterable[Piece]) -> tuple[list[tuple[int, list[Frame]]], int]:
    """Return what hangs together, each part with the size of the gap before it; and its end."""
    parts: list[tuple[int, list[Frame]]] = [(0, [])]
    position, decoder = 0, Decoder()
    for piece in pieces:
        if piece.position > position:
            parts.append((piece.position - position, []))
            position = piece.position
            decoder.reset()
        parts[-1][1].extend(decoder.feed(piece.frames[position - piece.position :]))
        position = max(position, piece.position + len(piece.frames))
    return parts, position
