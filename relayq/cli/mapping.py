"""What a map says on this terminal: each item's output as it ends, how far all are, what failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from relayq import clock
from relayq.cli import output, show, transfers
from relayq.cli.interrupts import (
    Interrupted,
    default_way,
    held,
    interruptible,
    leave_or_end,
)
from relayq.cli.mapmeter import MapMeter, Standing, metering, rate
from relayq.cli.texts import inert, number_of, span
from relayq.errors import Conflict, RelayqError
from relayq.model.jobs import JobState
from relayq.model.output import STDERR, STDOUT, Frame

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.mapitems import ItemResult
    from relayq.mapruns import MapRun
    from relayq.model.halts import Halt

#: How many failures are told one by one.
_TOLD = 20
_LOOK = 1.0
#: How many of the open jobs are looked at for how many run.
_LOOKED_AT = 200
_CANCEL_PATIENCE = 15.0
_LONGEST_INPUT = 60


@dataclass(frozen=True, slots=True)
class How:
    """How a map is to be told of."""

    keep_order: bool = False
    tag: bool = False
    quiet: bool = False
    as_json: bool = False
    detach: bool = False
    on_interrupt: str | None = None


def with_files(asked: dict[str, Any], *, comes_here: bool) -> dict[str, Any]:
    """Return the keywords with a place for each file whose place nobody said.

    There and here a relative path is the same below the job's directory and below this one, so
    that `{}` means the file in --in, in the command and in --out.
    """
    given = dict(asked)
    if "files_in" in asked:
        given["files_in"] = [_same_there(text) for text in asked["files_in"]]
    if "files_out" in asked and comes_here:
        given["files_out"] = [_same_here(text) for text in asked["files_out"]]
    return given


def _same_there(text: str) -> Any:
    is_below = not os.path.isabs(text) and ".." not in text.split("/") and text[:1] != "~"
    return (text, text) if ":" not in text and is_below else text


def _same_here(text: str) -> Any:
    if ":" in text:
        return text
    if set("*?[") & set(text):
        return (text, os.path.join(os.getcwd(), os.path.dirname(text), ""))
    return (text, os.path.join(os.getcwd(), text))


def tell_nothing(how: How) -> None:
    """Say of a map without inputs that it is done."""
    if how.as_json:
        show.print_json({"group": None, "items": [], "failed": 0, "cancelled": 0})
    elif not how.quiet:
        show.remark("no inputs, nothing to do")


def detach(run: MapRun, how: How) -> None:
    """Print what finds the map again."""
    if how.as_json:
        jobs = [{"id": one.id} for one in run.jobs]
        show.print_json({"group": run.group, "count": len(run), "jobs": jobs})
        return
    click.echo(run.group)
    if not how.quiet:
        show.remark(f"{_counted(run)} queued")
        show.hint(f"relayq map --attach {run.group}, or relayq wait @{run.group}")


def _counted(run: MapRun) -> str:
    items, jobs = number_of(len(run), "item"), len(run.jobs)
    return items if jobs == len(run) else f"{items} in {number_of(jobs, 'job')}"


def resume(relay: Relay, run: MapRun, how: How) -> int:
    """Run again what failed, if all of it has ended; returns the exit code."""
    open_ = [one for one in run.jobs if one.id in _going(relay, run)]
    if open_:
        raise Conflict(
            f"{number_of(len(open_), 'job')} of {run.group} haven't ended",
            hint=f"relayq map --attach {run.group}, or relayq cancel @{run.group}",
        )
    count = len(run.failed)
    if not count:
        if how.as_json:
            show.print_json({"group": run.group, "items": [], "failed": 0, "cancelled": 0})
        elif not how.quiet:
            show.remark(f"{run.group}  nothing failed: {number_of(len(run), 'item')} succeeded")
        return 0
    if how.detach:
        detach(run.retry_failed(), how)
        return 0
    return watch(relay, run.retry_failed, how, again=True)


def _going(relay: Relay, run: MapRun) -> set[str]:
    """Return the ids of the jobs that haven't ended."""
    seen = relay.session().store.progress.look([one.id for one in run.jobs])
    return {id for id, sight in seen.items() if sight.state.is_waitable}


def watch(
    relay: Relay,
    start: Callable[[], MapRun],
    how: How,
    *,
    begun_here: bool = True,
    again: bool = False,
    halt: Halt | None = None,
) -> int:
    """Print what the items of a map come to until all have ended; returns the exit code.

    Of one that runs `again` that is what hasn't succeeded before.
    """
    run, began = None, clock.boottime()
    with interruptible():
        try:
            relay.session()
            with held():
                run = start()
                numbers = run.open if again else run.numbers
                # What reads is loaded here: an import that a signal cuts short stays broken.
                run.take(0.0)
            if not how.quiet:
                said = f"{number_of(len(numbers), 'item')} again" if again else _counted(run)
                show.remark(f"{run.group}  {said}")
            return _Watching(relay, run, how, numbers, halt).go(began)
        except Interrupted as interrupt:
            if run is not None:
                _interrupted(run, interrupt, how, begun_here=begun_here)
            raise
        except BrokenPipeError:
            # As with any pipe: whose reader left ends, and says nothing.
            if run is not None and begun_here:
                run.cancel()
            raise
        finally:
            if run is not None:
                run.close()


class _Watching:
    """One look at a map, from its start to its end."""

    def __init__(
        self, relay: Relay, run: MapRun, how: How, numbers: Sequence[int], halt: Halt | None
    ) -> None:
        self._relay = relay
        self._run = run
        self._how = how
        self._halt = halt
        self._standing = Standing(run.group, len(numbers))
        self._earlier = [run.ended[number] for number in numbers if number in run.ended]
        self._order = iter(numbers)
        self._next = next(self._order, None)
        self._kept: dict[int, ItemResult] = {}
        self._told = 0
        self._items: list[dict[str, Any]] = []
        self._looked_at = 0.0

    def go(self, began: float) -> int:
        """Print until all have ended; returns the exit code. It began at that boot time."""
        is_quiet = self._how.quiet or self._how.as_json
        with metering(self._relay, self._standing, quiet=is_quiet) as meter:
            self._take(self._earlier, meter)
            while len(self._run.ended) < len(self._run):
                self._look()
                self._take(self._run.take(_LOOK), meter)
        return self._conclude(clock.boottime() - began)

    def _take(self, items: Iterable[ItemResult], meter: MapMeter) -> None:
        """Count items that ended, and print what may be printed by now."""
        for item in items:
            self._count(item)
            for one in self._ready(item):
                self._print(one, meter)

    def _count(self, item: ItemResult) -> None:
        standing = self._standing
        if item.ok:
            standing.done += 1
        elif item.state is JobState.CANCELLED:
            standing.dropped += 1
        else:
            standing.failed += 1

    def _look(self) -> None:
        """Count what runs, now and then."""
        if self._how.quiet or clock.boottime() - self._looked_at < _LOOK:
            return
        self._looked_at = clock.boottime()
        ids = self._run.open_jobs(_LOOKED_AT)
        look = self._relay.session().store.progress.look
        seen = self._relay.session().patiently(lambda: look(ids), None) or {}
        held_ = (JobState.RUNNING, JobState.LOST)
        self._standing.running = sum(one.state in held_ for one in seen.values())

    def _ready(self, item: ItemResult) -> Iterator[ItemResult]:
        """Yield what may be printed, now that this item has ended."""
        if not self._how.keep_order:
            yield item
            return
        self._kept[item.number] = item
        while self._next in self._kept:
            yield self._kept.pop(self._next)
            self._next = next(self._order, None)

    def _print(self, item: ItemResult, meter: MapMeter) -> None:
        if item.result is not None and not item.is_batched and item.record is not None:
            with meter.aside():
                transfers.bring(item.result, item.record, quiet=self._how.quiet)
        try:
            frames = list(item.frames())
        except RelayqError as error:
            frames = []
            with meter.aside():
                show.remark(f"{self._name(item)}  {error.message}")
        if self._how.as_json:
            self._items.append(_as_json(item, frames))
            return
        if frames:
            tag = self._how.tag
            meter.around(output.write)(_tagged(item, frames) if tag else frames)
        if not item.ok and not self._how.quiet:
            self._tell(item, meter)

    def _tell(self, item: ItemResult, meter: MapMeter) -> None:
        """Say why an item failed; of many that were only cancelled the end tells."""
        if item.state is JobState.CANCELLED or self._told > _TOLD:
            return
        self._told += 1
        with meter.aside():
            if self._told > _TOLD:
                show.remark("further failures are only counted")
                return
            where = f" on {item.host}" if item.host else ""
            text = inert(item.input or "", longest=_LONGEST_INPUT)
            named = f"  {text}" if text else ""
            show.remark(f"{self._name(item)} failed: {item.why}{where}{named}  ({item.job})")

    def _name(self, item: ItemResult) -> str:
        return f"{self._run.group} #{item.number}"

    def _conclude(self, seconds: float) -> int:
        standing, run = self._standing, self._run
        is_bad = bool(standing.failed or standing.dropped)
        if self._halt is not None and self._halt.counted == "success":
            # So many were what was asked for, and the rest was not to go on.
            is_bad = standing.done < self._halt.limit
        if self._how.as_json:
            told = {"group": run.group, "items": self._items, "failed": standing.failed}
            show.print_json({**told, "cancelled": standing.dropped})
        elif not self._how.quiet:
            parts = [f"{standing.done} done"]
            parts += [f"{standing.failed} failed"] if standing.failed else []
            parts += [f"{standing.dropped} cancelled"] if standing.dropped else []
            pace = rate(seconds / standing.ended) if standing.ended else ""
            show.remark(f"{run.group}  {', '.join(parts)} in {span(seconds)}  {pace}".rstrip())
            if is_bad:
                show.hint(f"relayq map --resume-failed {run.group}")
        return int(is_bad)


def _tagged(item: ItemResult, frames: Iterable[Frame]) -> list[Frame]:
    """Return an output with the input before each line of it."""
    before = (
        os.fsencode(str(item.number) if item.input is None else item.input).replace(b"\n", b" ")
        + b"\t"
    )
    tagged = []
    for channel in (STDOUT, STDERR):
        data = b"".join(frame.data for frame in frames if frame.channel == channel)
        lines = data.split(b"\n")
        ends = lines.pop() if lines[-1] == b"" else None
        if data:
            text = b"\n".join(before + line for line in lines)
            tagged.append(Frame(channel, 0.0, text + (b"\n" if ends is not None else b"")))
    return tagged


def _as_json(item: ItemResult, frames: Iterable[Frame]) -> dict[str, Any]:
    told = {
        "item": item.number,
        "input": None if item.input is None else os.fsencode(item.input).decode(errors="replace"),
        "job": item.job,
        "state": item.state.value,
        "reason": item.reason or None,
        "host": item.host,
        "exit_code": item.exit_code,
        "signal": item.signal,
        "duration": round(item.seconds, 6),
    }
    return {**told, **output.texts_of(frames)}


def _interrupted(run: MapRun, interrupt: Interrupted, how: How, *, begun_here: bool) -> None:
    """Leave a map that goes on, or cancel it: nobody may be there to be told that it does."""
    leave_or_end(
        interrupt,
        how.on_interrupt or (default_way() if begun_here else "detach"),
        run.group,
        hint=f"relayq map --attach {run.group}, or relayq cancel @{run.group}",
        end=lambda: _end(run, how),
        quiet=how.quiet,
    )


def _end(run: MapRun, how: How) -> None:
    """Cancel what has not ended, and stay until it is gone."""
    count = run.cancel()
    deadline = clock.boottime() + _CANCEL_PATIENCE
    while len(run.ended) < len(run) and clock.boottime() < deadline:
        run.take(0.5)
    if not how.quiet:
        left = len(run) - len(run.ended)
        said = f"{run.group}  {number_of(count, 'job')} cancelled"
        show.remark(f"{said}; {number_of(left, 'item')} not gone yet" if left else said)
