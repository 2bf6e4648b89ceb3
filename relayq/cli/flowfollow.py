"""Staying with a run of a workflow until its end: a live table, or a line at each change."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from relayq import clock
from relayq.cli import flowviews, show, tables
from relayq.cli.interrupts import (
    Interrupted,
    default_way,
    held,
    interruptible,
    leave_or_end,
)
from relayq.cli.screen import drawing
from relayq.cli.texts import inert, number_of
from relayq.errors import RelayqError, WaitTimeout
from relayq.flowruns import EXIT_CODES, FlowRun, StepJob, is_going

if TYPE_CHECKING:
    from relayq.client import Relay

#: How often a live table is drawn, in seconds, for the durations in it.
_TICK = 0.5
_CANCEL_PATIENCE = 15.0
_FIRST = 0.01
#: Lines of the terminal that aren't rows.
_AROUND = 4


def run(
    relay: Relay,
    begin: Callable[[], FlowRun],
    *,
    fresh: Collection[str] | None = None,
    on_interrupt: str | None,
    outputs: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Begin a run and stay until its end; returns the exit code.

    As JSON nothing is told on the way; else of the jobs, or of the `fresh` ones. With `outputs`
    all that they write is printed.
    """
    made: FlowRun | None = None
    with interruptible():
        try:
            relay.session()
            with held():
                made = begin()
                # The first wait imports much, and an interrupt leaves half of what it falls into.
                with suppress(WaitTimeout):
                    made.wait(_FIRST)
            if not quiet:
                show.remark(f"{made.id}  {inert(made.name)}")
            if as_json:
                state = made.wait()
            elif outputs:
                state = _printed(relay, made, fresh, quiet=quiet)
            else:
                state = _watched(relay, made, fresh, quiet=quiet)
        except Interrupted as interrupt:
            if made is not None:
                _interrupted(made, interrupt, on_interrupt, quiet=quiet)
            raise
    jobs = relay.session().surely(made.jobs)
    if as_json:
        show.print_json(flowviews.as_json(made, state, jobs))
    if not quiet:
        flowviews.conclude(made.id, state, jobs)
        if state == "succeeded":
            show.remark(f"{made.id}  succeeded: {', '.join(flowviews.total(jobs))}")
    return EXIT_CODES[state]


def _watched(relay: Relay, made: FlowRun, fresh: Collection[str] | None, *, quiet: bool) -> str:
    """Show the steps until the run has ended; returns its state."""
    seen: list[StepJob] = []

    def keep(jobs: Sequence[StepJob]) -> None:
        seen[:] = jobs

    with drawing(True) as draw:
        if draw is None:
            state = made.wait(on_change=(lambda jobs: None) if quiet else _Teller(fresh))
            jobs = relay.session().surely(made.jobs)
            tables.table(flowviews.COLUMNS, flowviews.rows(jobs, clock.now()))
            return state
        while True:
            try:
                state = made.wait(_TICK, on_change=keep)
            except WaitTimeout:
                # Without a broker the last look stands.
                draw(_table(seen))
                continue
            draw(_table(seen, whole=True))
            return state


def _table(jobs: Sequence[StepJob], *, whole: bool = False) -> str:
    """Return the table, of a large run the part that fits the screen: what goes on first."""
    size = shutil.get_terminal_size()
    room = max(3, size.lines - _AROUND)
    shown = jobs if whole and len(jobs) <= 2 * room else _most_wanted(jobs, room)
    lines = tables.laid_out(flowviews.COLUMNS, flowviews.rows(shown, clock.now()), size.columns)
    left = len(jobs) - len(shown)
    more = [f"{left} more not shown"] if left else []
    return "\n".join([*lines, *tables.joined([*flowviews.total(jobs), *more]), ""])


def _most_wanted(jobs: Sequence[StepJob], room: int) -> list[StepJob]:
    if len(jobs) <= room:
        return list(jobs)
    order = ("running", "lost", "needs_human", "failed", "queued", "scheduled", "cancelled")
    ranks = {state: rank for rank, state in enumerate((*order, "waiting", "succeeded", "skipped"))}
    ranked = sorted(range(len(jobs)), key=lambda n: (ranks.get(jobs[n].state, 0), n))[:room]
    return [jobs[n] for n in sorted(ranked)]


class _Teller:
    """Says a line at each change of a job."""

    def __init__(self, fresh: Collection[str] | None) -> None:
        self._fresh = fresh
        self._before: dict[str, tuple[str, int]] = {}

    def __call__(self, jobs: Sequence[StepJob]) -> None:
        for one in jobs:
            now = (one.state, one.record.attempt)
            if self._before.get(one.record.id) == now:
                continue
            is_first = one.record.id not in self._before
            self._before[one.record.id] = now
            is_old = is_first and self._fresh is not None and one.record.id not in self._fresh
            if not is_old and not (is_first and one.state in ("waiting", "queued")):
                show.remark(self._line(one, jobs))

    def _line(self, one: StepJob, jobs: Sequence[StepJob]) -> str:
        now = clock.now()
        took = flowviews.time_of(one.record, now) if one.record.state.is_final else "-"
        parts = [inert(one.name), one.state]
        parts += [f"on {one.record.host}"] if one.record.host and one.record.attempt else []
        parts += [f"after {took}"] if took != "-" else []
        note = flowviews.note_of(one.record, jobs, now)
        return " ".join(parts) + (f": {inert(note)}" if note else "")


def _printed(relay: Relay, made: FlowRun, fresh: Collection[str] | None, *, quiet: bool) -> str:
    """Print what the jobs write, until the run has ended."""
    from relayq.cli import together
    from relayq.results import JobResult

    session = relay.session()
    jobs = made.jobs()
    if len(jobs) > together.MOST:
        show.remark(f"{len(jobs)} jobs are too many to print what they write: relayq logs JOB")
        return _watched(relay, made, fresh, quiet=quiet)
    results = [JobResult(session, one.record.id) for one in jobs]
    names = {one.record.id: inert(one.name) for one in jobs}
    together.follow(relay, results, lambda one: one.logs(follow=True), quiet=quiet, names=names)
    return made.wait()


def _interrupted(
    made: FlowRun, interrupt: Interrupted, on_interrupt: str | None, *, quiet: bool
) -> None:
    """Detach from a run, or end it; as for a job: who can't see a message must not leave one."""
    leave_or_end(
        interrupt,
        on_interrupt or default_way(),
        made.id,
        hint=f"relayq flow show {made.id}, or relayq flow cancel {made.id}",
        end=lambda: end(made, quiet=quiet),
        quiet=quiet,
    )


def end(made: FlowRun, *, quiet: bool) -> str:
    """Cancel a run and stay until the last of it is gone; returns its state."""
    words = [word for _, word in made.cancel()]
    running = words.count("asked")
    say: Callable[[str], Any] = (lambda line: None) if quiet else show.remark
    if not running and "cancelled" not in words:
        state = made.state
        say(f"{made.id} is already {state}")
        return state
    told = [f"{number_of(words.count('cancelled'), 'job')} cancelled"]
    told += [f"{running} to end on their hosts"] if running else []
    say(f"{made.id}  {', '.join(told)}")
    try:
        state = made.wait(_CANCEL_PATIENCE)
    except WaitTimeout:
        going = [one for one in made.jobs() if is_going([one])]
        hosts = ", ".join(sorted({one.record.host or "?" for one in going}))
        say(f"{made.id} hasn't ended yet on {hosts}; the cancel is kept")
        return "running"
    except RelayqError as error:
        show.remark(error.message)
        return "running"
    say(f"{made.id}  {state}")
    return state
