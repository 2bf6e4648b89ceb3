"""What a watched directory comes to on this terminal: a line for each job, and for its end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from relayq import clock
from relayq.cli import show, transfers
from relayq.cli.interrupts import Interrupted, interruptible
from relayq.cli.texts import inert, number_of, span
from relayq.errors import (
    FileChanged,
    NoRoom,
    NoSuchHost,
    RelayqError,
    TransferFailed,
    Unplaceable,
    WrongFleetKey,
)
from relayq.gathering import Ends
from relayq.model.jobs import JobRecord, JobState, Spec
from relayq.model.watches import Settling, Version
from relayq.results import JobResult

if TYPE_CHECKING:
    from relayq.client import Relay
    from relayq.watching import Watch

#: What ends the watching: it would be said of every file.
_FATAL = (NoSuchHost, Unplaceable, WrongFleetKey)
#: What is tried again at the next look.
_PASSES = (TransferFailed, NoRoom)
#: So many jobs are asked for in one round trip.
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class How:
    """How a directory is watched, and told of."""

    settle: float
    every: float
    existing: bool = True
    once: bool = False
    quiet: bool = False
    as_json: bool = False


def tell(error: OSError) -> None:
    """Say that something can't be read."""
    where = error.filename if isinstance(error.filename, str) else "it"
    show.remark(f"{inert(where)} can't be read: {os.strerror(error.errno or 0).lower()}")


def text(path: str) -> str:
    """Return a path as JSON can have it."""
    return os.fsencode(path).decode(errors="replace")


class Watching:
    """One watch, from its start to ^C, or to the end of what was there."""

    def __init__(self, relay: Relay, watch: Watch, how: How) -> None:
        self._relay = relay
        self._watch = watch
        self._how = how
        self._settling = Settling(how.settle)
        self._ends = Ends(relay.session())
        self._names: dict[str, str] = {}
        self._said: set[str] = set()
        self._count = 0
        self._is_bad = False

    def go(self) -> int:
        """Watch; returns the exit code."""
        with interruptible():
            try:
                return self._go()
            except Interrupted:
                self._leave()
                raise

    def _go(self) -> int:
        if not self._how.existing:
            self._skip()
        if not self._how.quiet:
            show.remark(f"watching {inert(self._watch.watched.directory)} (@{self._watch.group})")
        while True:
            began = clock.boottime()
            self._look()
            if self._how.once and not len(self._settling) and not len(self._ends):
                return int(self._is_bad)
            self._rest(began + self._how.every)

    def _skip(self) -> None:
        """Let what is there be."""
        for path, version in (self._watch.scan(self._trouble) or {}).items():
            self._settling.take(path, version)

    def _look(self) -> None:
        """Queue a job for each file that is whole by now and has none."""
        found = self._watch.scan(self._trouble)
        if found is None:
            return
        whole = list(self._settling.look(found, clock.boottime()).items())
        for start in range(0, len(whole), _PAGE):
            some = whole[start : start + _PAGE]
            ids = {path: self._watch.watched.id_for(path, version) for path, version in some}
            known = self._known(list(ids.values()))
            for path, version in some:
                record = known.get(ids[path])
                if record is None:
                    self._begin(path, version)
                else:
                    self._again(path, version, record)

    def _known(self, ids: list[str]) -> dict[str, JobRecord]:
        session = self._relay.session()
        fetch = partial(session.store.jobs.fetch_many, ids)
        return {record.id: record for record in session.surely(fetch)}

    def _begin(self, path: str, version: Version) -> None:
        """Queue the job for a file; one that changed or vanished since is left for later."""
        try:
            spec = self._watch.plan(path, version, self._count + 1)
        except RelayqError as error:
            if self._watch.is_still(path, version):
                self._refuse(path, version, error)
            return
        self._watch.check_ends(spec)
        if not self._watch.is_still(path, version) or not self._submit(path, version, spec):
            return
        self._count += 1
        self._settling.take(path, version)
        self._follow(path, spec.id)
        self._told("submitted", path, spec.id)

    def _submit(self, path: str, version: Version, spec: Spec) -> bool:
        """Queue a job, over an outage of the broker; returns whether it was."""
        try:
            self._relay.session().surely(partial(self._watch.submit, spec))
        except _FATAL:
            raise
        except (FileChanged, FileNotFoundError):
            return False
        except _PASSES as error:
            self._say_once(f"{self._name(path)} waits: {error.message}")
            return False
        except RelayqError as error:
            if self._watch.is_still(path, version):
                self._refuse(path, version, error)
            return False
        return True

    def _again(self, path: str, version: Version, record: JobRecord) -> None:
        """Follow the job that a file has had before this began, as far as it isn't over."""
        self._settling.take(path, version)
        if record.state.is_waitable:
            self._follow(path, record.id)
        elif self._watch.brings and record.id not in self._watch.brought:
            self._names[record.id] = path
            self._bring(JobResult(self._relay.session(), record.id), record)

    def _follow(self, path: str, id: str) -> None:
        self._names[id] = path
        self._ends.add([JobResult(self._relay.session(), id)])

    def _rest(self, until: float) -> None:
        """Take what ends until the next look."""
        while (left := until - clock.boottime()) > 0:
            if not len(self._ends):
                if self._how.once and not len(self._settling):
                    return
                clock.sleep(left)
                continue
            for result in self._ends.take(left):
                self._end(result)

    def _end(self, result: JobResult) -> None:
        record = result.record
        path = self._names.get(record.id, "")
        is_good = record.state is JobState.SUCCEEDED
        self._is_bad = self._is_bad or not is_good
        self._bring(result, record)
        self._told("ended", path, record.id, record)
        self._names.pop(record.id, None)
        if is_good or self._how.quiet or self._how.as_json:
            return
        show.remark(f"{self._name(path)}  {show.verdict(record, result.outcome())}")

    def _bring(self, result: JobResult, record: JobRecord) -> None:
        """Bring what a job made; what can't be brought is said, and can be had by `get`."""
        if not self._watch.brings:
            return
        try:
            transfers.bring(result, record, quiet=self._how.quiet)
        except RelayqError as error:
            self._is_bad = True
            show.remark(f"{record.id}  {error.message}")
            show.hint(error.hint or f"relayq get {record.id}")
            return
        self._watch.brought.add(record.id)

    def _told(self, what: str, path: str, id: str, record: JobRecord | None = None) -> None:
        """Tell of a job that was queued, or ended."""
        if self._how.as_json:
            ended = {} if record is None else {"record": show.as_json(record)}
            show.print_json(
                {"event": what, "file": text(self._watch.shown(path)), "id": id, **ended}
            )
            return
        if record is None:
            click.echo(id)
            if not self._how.quiet:
                show.remark(f"{self._name(path)}  queued as {id}")
        elif not self._how.quiet and record.state is JobState.SUCCEEDED:
            took = "" if record.duration is None else f" in {span(record.duration)}"
            where = f" on {record.host}" if record.host else ""
            show.remark(f"{self._name(path)}  done{took}{where}  ({id})")

    def _refuse(self, path: str, version: Version, error: RelayqError) -> None:
        """Say why a file gets no job; it is tried again when it has changed."""
        self._is_bad = True
        self._settling.take(path, version)
        show.remark(f"{self._name(path)} is left alone: {error.message}")
        if error.hint:
            show.hint(error.hint)

    def _trouble(self, error: OSError) -> None:
        if str(error) not in self._said:
            self._said.add(str(error))
            self._is_bad = True
            tell(error)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            show.remark(line)

    def _name(self, path: str) -> str:
        return inert(self._watch.shown(path))

    def _leave(self) -> None:
        if self._how.quiet:
            return
        count = len(self._ends)
        goes = f"; {number_of(count, 'job')} of it go on" if count else ""
        show.remark(f"no longer watching{goes}")
        if count:
            show.hint(f"relayq wait @{self._watch.group}, or relayq cancel @{self._watch.group}")
