"""A job's output on this terminal: the streaming half of `run`, and `logs`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from relayq import clock
from relayq.cli import show
from relayq.cli.interrupts import Interrupted, held, interruptible
from relayq.cli.options import client, ended, is_interactive, is_offline
from relayq.errors import OutputUnavailable, RelayqError, WaitTimeout
from relayq.model.output import STDERR, Decoder, Frame
from relayq.results import exit_status

if TYPE_CHECKING:
    from relayq.client import JobResult, Relay
    from relayq.store.logs import Piece

#: How long a job may be queued before `run` says so.
_QUIET_WAIT = 1.0
#: How long an interrupted `run` waits for the end of the job that it cancelled.
_CANCEL_PATIENCE = 15.0


def write(frames: Iterable[Frame]) -> None:
    """Write what the job wrote, each channel to its own, byte for byte and at once."""
    for frame in frames:
        stream = sys.stderr.buffer if frame.channel == STDERR else sys.stdout.buffer
        stream.write(frame.data)
        stream.flush()


def run(relay: Relay, submit: Callable[[], JobResult], *, host: str | None, quiet: bool) -> int:
    """Submit a job and stream it to its end; returns the exit code of `run`."""
    result = None
    with interruptible():
        try:
            relay.session()
            with held():
                result = submit()
            if not quiet:
                note_offline(relay, host)
            _stream(relay, result, host, quiet=quiet)
            record = ended(result)
        except Interrupted:
            if result is not None:
                _leave(result, detach=is_interactive(), quiet=quiet)
            raise
        except BrokenPipeError:
            # As with any pipe: whose reader left ends, and says nothing.
            if result is not None:
                _leave(result, detach=False, quiet=True)
            raise
    line = show.verdict(record, result.outcome())
    if line and not quiet:
        show.remark(line)
    return exit_status(record)


def _stream(relay: Relay, result: JobResult, host: str | None, *, quiet: bool) -> None:
    timer = threading.Timer(_QUIET_WAIT, _note_waiting, (relay, result.id, host))
    timer.daemon = True
    if sys.stderr.isatty() and not quiet:
        timer.start()
    try:
        for frame in result.logs(follow=True):
            timer.cancel()
            write([frame])
    finally:
        timer.cancel()


def _note_waiting(relay: Relay, id: str, host: str | None) -> None:
    with suppress(RelayqError):
        record = relay.session().store.jobs.fetch(id)
        if not record.state.is_final and record.attempt == 0:
            show.remark(f"{id} waiting for {host or 'any host'}")


def note_offline(relay: Relay, host: str | None) -> None:
    """Say so when the asked host is away."""
    # The job is queued: nothing that goes wrong from here on is a failure of that.
    with suppress(RelayqError):
        if host is not None and is_offline(relay, host):
            show.remark(f"{host} is offline; the job waits")


def _leave(result: JobResult, *, detach: bool, quiet: bool) -> None:
    """Detach from a job, or end it: who can't see a message must not leave one running."""
    id = result.id
    say = (lambda line: None) if quiet else show.remark
    if detach:
        say(f"detached; {id} goes on (relayq logs -f {id}; relayq cancel {id})")
        return
    try:
        result.cancel()
        record = ended(result, clock.boottime() + _CANCEL_PATIENCE)
    except WaitTimeout:
        say(f"{id} hasn't ended yet; the cancel is kept (relayq wait {id})")
    except RelayqError as error:
        show.remark(f"{id} may go on: it couldn't be cancelled: {error.message}")
    else:
        say(show.verdict(record, None) or f"{id}  succeeded before it could be cancelled")


@click.command()
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.pass_context
def logs(ctx: click.Context, id: str, follow: bool, tail: int | None) -> None:
    """Print a job's output, stdout and stderr each to its own."""
    with client(needs_worker=True) as relay:
        result = relay.job.fetch(id)
        record = result.record
        if record.attempt == 0 and not follow:
            show.remark(f"{result.id} is {record.state.value}; there is no output yet")
            return
        if not follow and not _is_at_hand(result) and is_offline(relay, record.host or ""):
            ctx.exit(_kept(relay, result, tail, f"{record.host} is offline"))
        try:
            write(_frames(result, follow=follow, tail=tail))
        except OutputUnavailable as error:
            if follow:
                raise
            ctx.exit(_kept(relay, result, tail, error.message))


def _is_at_hand(result: JobResult) -> bool:
    """Whether the broker holds the whole output."""
    outcome = None if result.record.state.is_waitable else result.outcome()
    return outcome is not None and outcome.is_whole


def _frames(result: JobResult, *, follow: bool, tail: int | None) -> Iterator[Frame]:
    if tail is None:
        yield from result.logs(follow=follow)
        return
    so_far = list(result.logs())
    yield from last_lines(so_far, tail)
    if follow:
        # The same frames come again from the start, unless another attempt has begun.
        before = iter(so_far)
        for frame in result.logs(follow=True):
            if next(before, None) != frame:
                before = iter(())
                yield frame


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
            show.remark(f"... {show.size(gap)} are only on {record.host}")
        write(frames)
    if outcome is not None and not missing and not any(gap for gap, _ in parts):
        return 0
    show.remark(f"{why}; this is what the broker kept of the output of {record.id}")
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
