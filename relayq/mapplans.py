"""One command for each of many inputs: checked, planned, submitted.

The first items go singly and are measured; only where these were short do the others travel many
in a job (model/batches.py). What becomes of them is in `relayq.mapruns`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relayq import clock, inside, kinds
from relayq.dispatch import Dispatcher
from relayq.errors import NoSuchJob, RelayqError
from relayq.mapruns import MapRun
from relayq.model import batches
from relayq.model.files import FileIn, FileOut, is_url
from relayq.model.halts import Halt
from relayq.model.jobs import JobRecord, Spec, new_id
from relayq.model.maps import Command, Item, command_for, filled, items_of, with_placeholder
from relayq.specs import OPTIONS

if TYPE_CHECKING:
    from relayq.client import Job

#: How long a map waits to see how long its first items take; then all go singly.
_MEASURES = 2.0
#: So many of them say enough when that time is over.
_ENOUGH = 4
AUTO, OFF = "auto", "off"
#: How many jobs of each state are looked at for the map that was submitted last.
_RECENT = 50
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class MapPlan:
    """What a map would submit: a command an item, as jobs like `pattern`.

    So many of them as `size` says travel together; None is for what the first turn out to take.
    """

    id: str
    pattern: Spec
    items: Sequence[Item]
    commands: Sequence[Command]
    halt: Halt | None
    concurrency: int | None
    size: int | None
    waits_for_host: bool
    single: Callable[[int], Spec]

    @property
    def inputs(self) -> Mapping[int, str]:
        """The inputs by the items' numbers."""
        return {item.number: item.text for item in self.items}

    def specs(self, begin: int, end: int, size: int = 1) -> list[Spec]:
        """Return the jobs for the items from one position to another, so many in each."""
        made = []
        for start in range(begin, end, size):
            stop = min(start + size, end)
            if stop - start == 1:
                made.append(self.single(start))
                continue
            pairs = [(self.items[n].number, self.commands[n]) for n in range(start, stop)]
            halts = self.halt is not None
            # A chain of jobs goes on where one ends: nothing may come out of it at the side.
            gives_back = self.concurrency is None
            batch = batches.batch_of(
                self.pattern, pairs, id=new_id(), halts=halts, gives_back=gives_back
            )
            made.append(batch)
        return made


def plan(
    job: Job,
    cmd: str | Sequence[str],
    inputs: Iterable[Any],
    *,
    concurrency: int | None = None,
    halt: str | None = None,
    batch: int | str = AUTO,
    wait_for_host: bool = False,
    files_in: Iterable[Any] = (),
    files_out: Iterable[Any] = (),
    **options: Any,
) -> MapPlan:
    """Check what a map was asked, all of it, and return what it would submit."""
    items = items_of(inputs)
    if concurrency is not None and concurrency < 1:
        raise RelayqError(f"a concurrency is a number from 1 on, not {concurrency}")
    if options.get("unique") is not None:
        raise RelayqError("a unique key means one job, and a map is many")
    template = with_placeholder(cmd if isinstance(cmd, str) else list(cmd))
    commands = [command_for(template, item) for item in items]
    id = new_id()
    asked = {**options, "group": options.get("group") or f"map-{id[:6]}"}
    asked["meta"] = _meta(asked.get("meta"), id)
    chosen = {key: asked.pop(key) for key in OPTIONS if key in asked}
    files = (tuple(files_in), tuple(files_out))
    make = partial(job._spec, "run_command")
    pattern = make({**asked, "cmd": commands[0] if commands else template}, **chosen)
    read = kinds.find("run_command").read_payload
    for command in commands:
        read({**asked, "cmd": command})
    stop = None if halt is None else batches.read_halt(halt, name=id, count=len(items))
    pattern = replace(pattern, payload=asked, halts=() if stop is None else (id,))

    def single(position: int) -> Spec:
        item, command = items[position], commands[position]
        if not any(files):
            return batches.single_of(pattern, item.number, command, id=new_id())
        names = [files_for(some, item) for some in files]
        own = make({**asked, "cmd": command}, files_in=names[0], files_out=names[1], **chosen)
        own = replace(own, payload=asked, halts=pattern.halts)
        return batches.single_of(own, item.number, command, id=own.id)

    size = _size(batch, pattern, stop, len(items), has_files=any(files))
    return MapPlan(id, pattern, items, commands, stop, concurrency, size, wait_for_host, single)


def start(job: Job, plan: MapPlan, *, ordered: bool = True) -> MapRun:
    """Queue what was planned."""
    group = plan.pattern.group or ""
    run = MapRun(job.relay.session(), plan.id, group, inputs=plan.inputs, ordered=ordered)
    count, size = len(plan.items), plan.size
    if size is not None:
        _queue(job, plan, run, plan.specs(0, count, size))
        return run
    _queue(job, plan, run, plan.specs(0, batches.MEASURED))
    times = _measured(run)
    slots = sum(host.slots for host in job.relay.hosts() if host.is_online)
    left = count - batches.MEASURED
    size = batches.batch_size(times, left, min(slots, plan.concurrency or slots))
    _queue(job, plan, run, plan.specs(batches.MEASURED, count, size))
    return run


def _queue(job: Job, plan: MapPlan, run: MapRun, specs: Sequence[Spec]) -> None:
    """Queue further jobs of a map, after those of it that they have to wait for."""
    if not specs:
        return
    if plan.concurrency is not None:
        before = [one.id for one in run.jobs]
        ids = [*before, *(spec.id for spec in specs)]
        places = range(len(before) - plan.concurrency, len(ids) - plan.concurrency)
        specs = [
            replace(spec, after_any=(*spec.after_any, ids[place])) if place >= 0 else spec
            for spec, place in zip(specs, places, strict=True)
        ]
    session = job.relay.session()
    specs = job._sent(specs, job._locate, waits=plan.waits_for_host)
    specs, placements = job._locate(specs, wait_for_host=plan.waits_for_host)
    halts = () if plan.halt is None else (plan.halt,)
    dispatcher = Dispatcher(session.store, session.signer)
    dispatcher.submit(specs, placements=placements, halts=halts)
    job._refer(specs)
    run.add(specs)


def find(job: Job, group: str | None = None, *, ordered: bool = True) -> MapRun:
    """Find a map by the group of its jobs, the newest map in it; without one the last of all."""
    session = job.relay.session()
    if group is None:
        of_maps = [one for one in session.store.jobs.recent(_RECENT) if _map_of(one)]
        if not of_maps:
            raise NoSuchJob("no map was submitted lately", hint="relayq map --help")
        newest = max(of_maps, key=lambda record: record.created_at)
        group = newest.spec.group if newest.spec is not None else None
    name = (group or "").removeprefix("@")
    ids = session.store.lookup.select([f"@{name}"])
    records: list[JobRecord] = []
    for start in range(0, len(ids), _PAGE):
        records += session.store.jobs.fetch_many(ids[start : start + _PAGE])
    id = next(filter(None, map(_map_of, reversed(records))), "")
    if not id:
        raise NoSuchJob(f"no job of the group {name} is of a map", hint=f"relayq ps @{name}")
    run = MapRun(session, id, name, inputs={}, ordered=ordered)
    specs = [one.spec for one in records if one.spec is not None and _map_of(one) == id]
    run.add(specs, fresh=False)
    return run


def _map_of(record: JobRecord) -> str:
    """Return the id of the map that a job is of, "" for any other job."""
    return "" if record.spec is None else record.spec.meta.get(batches.MAP, "")


def _meta(asked: Mapping[str, str] | None, id: str) -> dict[str, str]:
    """Return the facts to keep with each job of a map."""
    if taken := sorted({batches.MAP, batches.ITEM} & set(asked or ())):
        raise RelayqError(f"a map keeps a fact called {taken[0]} itself: choose another name")
    return {**(asked or {}), batches.MAP: id}


def _size(
    asked: int | str, pattern: Spec, halt: Halt | None, count: int, *, has_files: bool
) -> int | None:
    """Return how many items travel together, None for what the first turn out to take."""
    never = "files" if has_files else batches.why_never(pattern)
    if not never and inside.is_inside():
        never = "a job that submits them"
    if not never and halt is not None and halt.counted != "fail":
        never = f"a halt by {halt.counted}"
    if isinstance(asked, str) and asked.isdecimal():
        asked = int(asked)
    if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0:
        if never and asked > 1:
            raise RelayqError(f"items with {never} can't travel together", hint="--batch off")
        return min(asked, batches.LARGEST)
    if asked not in (AUTO, OFF):
        raise RelayqError(f"a batch is a number of items, {AUTO} or {OFF}, not {asked!r}")
    waits = pattern.after or pattern.after_any or pattern.due_at is not None or pattern.with_job
    if asked == OFF or never or waits or not batches.is_worth_measuring(count):
        return 1
    return None


def _measured(run: MapRun) -> list[float]:
    """Return how long the first items took, as far as they end soon."""
    deadline = clock.boottime() + _MEASURES
    while len(run.ended) < len(run) and (left := deadline - clock.boottime()) > 0:
        run.take(left)
        if not batches.are_short(one.seconds for one in run.ended.values()):
            break
    times = [one.seconds for one in run.ended.values()]
    return times if len(times) >= min(_ENOUGH, len(run)) else []


def files_for(files: Iterable[Any], item: Item) -> list[Any]:
    """Return the files of one item."""
    return [_file(one, item) for one in files]


def _file(one: Any, item: Item) -> Any:
    """Return a file with the placeholders in its names replaced; what an input has is no syntax."""
    match one:
        case FileIn():
            return replace(one, source=filled(one.source, item), dest=filled(one.dest, item))
        case FileOut():
            return replace(one, pattern=filled(one.pattern, item), dest=filled(one.dest, item))
        case tuple() | list():
            return tuple(filled(os.fspath(part), item) for part in one)
    text = os.fspath(one)
    if isinstance(one, str) and is_url(text):
        return filled(text, item)
    source, colon, dest = text.rpartition(":")
    if isinstance(one, str) and colon and source:
        return filled(source, item), filled(dest, item)
    return Path(filled(text, item))
