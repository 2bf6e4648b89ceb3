"""A job's output on this terminal: the streaming half of `run`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from relayq import clock
from relayq.cli import live, show, transfers, waits
from relayq.cli.interrupts import (
    Interrupted,
    default_way,
    held,
    interruptible,
    leave_or_end,
)
from relayq.cli.options import ended, host_named
from relayq.errors import OutputUnavailable, RelayqError, WaitTimeout
from relayq.model.output import STDERR, STDOUT, Frame, only

if TYPE_CHECKING:
    from relayq.cli.taming import Tamer
    from relayq.client import JobResult, Relay
    from relayq.model.jobs import JobRecord

#: Sends a job its input as long as the context lasts.
Source = Callable[["JobResult"], AbstractContextManager[None]]

#: How long an interrupted `run` waits for the end of the job that it cancelled.
_CANCEL_PATIENCE = 15.0


class Unwritable(RelayqError):
    """What a job wrote can't be written here, to a full disk for instance; the job itself can."""


def write(frames: Iterable[Frame]) -> None:
    """Write what the job wrote at once, each channel to its own; to a terminal tamed."""
    for frame in frames:
        stream = sys.stderr if frame.channel == STDERR else sys.stdout
        tamer = _tamer(frame.channel) if stream.isatty() else None
        _write(stream, frame.data if tamer is None else tamer.feed(frame.data))


def _write(stream: TextIO, data: bytes) -> None:
    try:
        stream.buffer.write(data)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(
            f"the output can't be written here: {error.strerror}",
            hint="df -h; what a job wrote is kept: relayq logs JOB",
        ) from error


@cache
def _tamer(channel: int) -> Tamer:
    from relayq.cli.taming import Tamer

    return Tamer()


def write_raw(frames: Iterable[Frame]) -> None:
    """Write what a job wrote that has this terminal for its own, byte for byte."""
    for frame in frames:
        _write(sys.stdout, frame.data)


@contextmanager
def gaps_told(id: str) -> Iterator[None]:
    """Pass on what there is of an output that a full disk cut, and say then what isn't there."""
    try:
        yield
    except OutputUnavailable as error:
        if not told_as_gap(id, error):
            raise


def told_as_gap(id: str, error: RelayqError) -> bool:
    """Say what a full disk cost; False when the error is another one.

    It is said in spite of -q: nothing else would tell that the output isn't whole.
    """
    if not isinstance(error, OutputUnavailable) or not error.missing:
        return False
    show.remark(f"{id}  {error.missing} bytes of output are missing: {error.host}'s disk was full")
    return True


def run(
    relay: Relay,
    submit: Callable[[], JobResult],
    *,
    host: str | None,
    on_interrupt: str | None = None,
    quiet: bool,
    as_json: bool = False,
    source: Source | None = None,
    retries: bool = False,
) -> int:
    """Submit a job and stream it to its end; returns the exit code of `run`.

    As JSON nothing is streamed: the record with the whole output comes at the end. `source` is
    what the job reads. With `retries` the job isn't new, and all the same begun here.
    """
    result = None
    kept: list[Frame] = []
    with interruptible():
        try:
            relay.session()
            with held():
                result = submit()
            if not quiet:
                note_absence(relay, host)
                result.on_silence = waits.teller(relay, result)
            fed = source(result) if source is not None and result.is_new else nullcontext()
            with fed, nullcontext() if as_json else gaps_told(result.id):
                to = kept.extend if as_json else _writer(source)
                _stream(relay, result, quiet=quiet or _is_terminal(source), to=to)
            record = ended(result)
        except Interrupted as interrupt:
            if result is not None:
                # A job that somebody else began isn't ended by who only watches it.
                is_ours = retries or result.is_new
                how = on_interrupt if is_ours else on_interrupt or "detach"
                _interrupted(result, interrupt, how, quiet=quiet)
            raise
        except Unwritable as error:
            if result is None:
                raise
            raise Unwritable(
                f"{error.message}; the job goes on", hint=f"relayq logs -f {result.id}"
            ) from error
        except BrokenPipeError:
            # As with any pipe: whose reader left ends, and says nothing.
            if result is not None and (retries or result.is_new):
                _end(result, quiet=True)
            raise
    _conclude(result, record, quiet=quiet)
    # What somebody else began brings its files to them.
    brought = transfers.bring(result, record, quiet=quiet) if retries or result.is_new else []
    if as_json:
        answer = result.agent
        more: dict[str, Any] = {} if answer is None else {"answer": answer.as_dict()}
        outcome = result.outcome()
        if answer is None and outcome is not None and outcome.result is not None:
            more["result"] = outcome.result
        more |= {"fetched": brought} if brought else {}
        show.print_json({**show.with_remarks(result, record), **texts_of(kept), **more})
    from relayq.model.ends import exit_status

    return exit_status(record)


def only_answer(
    relay: Relay,
    submit: Callable[[], JobResult],
    *,
    on_interrupt: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Submit an agent's job, wait for its end, and print its answer and nothing else."""
    result = None
    with interruptible():
        try:
            with held():
                result = submit()
            with live.watching(relay, [result.id], quiet=quiet):
                record = ended(result)
        except Interrupted as interrupt:
            if result is not None:
                how = on_interrupt if result.is_new else on_interrupt or "detach"
                _interrupted(result, interrupt, how, quiet=quiet)
            raise
    if as_json:
        answer = result.agent
        shown = None if answer is None else answer.as_dict()
        show.print_json({**show.with_remarks(result, record), "answer": shown})
    elif result.agent is not None:
        from relayq.cli.agent import print_value

        print_value(result.agent)
    _conclude(result, record, quiet=quiet)
    if result.is_new:
        transfers.bring(result, record, quiet=quiet)
    from relayq.model.ends import exit_status

    return exit_status(record)


def attach(relay: Relay, result: JobResult, source: Source | None, *, quiet: bool) -> int:
    """Follow a job that runs, as its terminal if there is a source; returns its exit code."""
    with interruptible():
        try:
            with source(result) if source is not None else nullcontext(), gaps_told(result.id):
                _stream(relay, result, quiet=quiet or _is_terminal(source), to=_writer(source))
            record = ended(result)
        except Interrupted as interrupt:
            _interrupted(result, interrupt, "detach", quiet=quiet)
            raise
    _conclude(result, record, quiet=quiet)
    from relayq.model.ends import exit_status

    return exit_status(record)


def _conclude(result: JobResult, record: JobRecord, *, quiet: bool) -> None:
    """Say what an end without success was; what the job wrote says the most about it."""
    line = show.verdict(record, result.outcome())
    if line and not quiet:
        show.remark(line)
        if show.is_not_found(record):
            show.hint(show.next_step(record))
    if not quiet:
        show.tell_remarks(result)


def texts_of(frames: Iterable[Frame]) -> dict[str, str]:
    """Return an output as JSON shows it; wrong UTF-8 is U+FFFD."""
    kept = list(frames)
    channels = {"stdout": STDOUT, "stderr": STDERR}
    return {
        name: only(kept, channel).decode(errors="replace") for name, channel in channels.items()
    }


def _stream(
    relay: Relay,
    result: JobResult,
    *,
    quiet: bool,
    to: Callable[[Iterable[Frame]], None],
) -> None:
    with live.watching(relay, [result.id], quiet=quiet) as meter:
        put = meter.around(to)
        for frame in result.logs(follow=True):
            put([frame])


def _writer(source: Source | None) -> Callable[[Iterable[Frame]], None]:
    return write_raw if _is_terminal(source) else write


def _is_terminal(source: Source | None) -> bool:
    """Whether the job has this terminal for its own, and nothing else belongs there."""
    from relayq.cli.terminal import terminal

    return getattr(source, "func", source) is terminal


def note_absence(relay: Relay, host: str | None) -> None:
    """Say so when the asked host is away, or takes no work now, or nobody is there at all."""
    # The job is queued: nothing that goes wrong from here on is a failure of that.
    with suppress(RelayqError):
        if host is None:
            _note_that_nobody_is_there(relay)
            return
        asked = host_named(relay, host)
        if asked is not None and not asked.takes_work:
            state, why = asked.standing
            show.remark(f"{host} is {state}{f' ({why})' if why else ''}; the job waits")


def _note_that_nobody_is_there(relay: Relay) -> None:
    if relay.session().store.hosts.is_any_near(within=relay.config.lease.length):
        return
    from relayq import embedded

    # This machine's worker may have been started for this very job, and not be online yet.
    if embedded.worker_pid(relay.config) is None:
        show.remark("no host is online; the job waits")
        show.hint("relayq worker install, on a machine that is to run jobs")


def _interrupted(
    result: JobResult, interrupt: Interrupted, on_interrupt: str | None, *, quiet: bool
) -> None:
    """Detach from a job, or end it: who can't see a message must not leave one running."""
    leave_or_end(
        interrupt,
        on_interrupt or default_way(),
        result.id,
        hint=f"relayq attach {result.id}, or relayq cancel {result.id}",
        end=lambda: _end(result, quiet=quiet),
        quiet=quiet,
    )


def _end(result: JobResult, *, quiet: bool) -> None:
    """Cancel a job and stay until it is gone."""
    id = result.id
    say = (lambda line: None) if quiet else show.remark
    try:
        result.cancel()
        record = ended(result, clock.boottime() + _CANCEL_PATIENCE)
    except WaitTimeout:
        say(f"{id} hasn't ended yet; the cancel is kept (relayq wait {id})")
    except RelayqError as error:
        show.remark(f"{id} may go on: it couldn't be cancelled: {error.message}")
    else:
        say(show.verdict(record, None) or f"{id}  succeeded before it could be cancelled")
