"""The program that runs a batch: short commands one after another, as a job's process.

The order comes on standard input. Each item has a session, an output and a time limit of its own,
and is over when nothing of it lives; its end is told at once, as a line of JSON on standard output
(model/batches.py reads them). When one takes long, the items after it are given back: the worker
makes jobs of their own of them. Standard library only, for a start in milliseconds.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from contextlib import suppress
from time import monotonic
from typing import Any

from relayq.host import leader, spool, tree

#: The file in the attempt's directory that says which items the batch gave back.
GIVEN = "given.json"
REPORT = "RELAYQ_REPORT"
#: What is the batch's own, and no item's.
_OWN = (REPORT, "RELAYQ_DESK", "RELAYQ_CHECKPOINT")
#: Handled, so that they wake the program and no item inherits that they are ignored.
_HANDLED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD),
    *(signal.SIGPIPE, signal.SIGXFSZ),
)
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_PIECE = 65_536
#: How long lines may wait for each other, in seconds: a write for each item is a tenth of its time.
_GATHERED = 0.02
_TICK = 1.0
#: More than a tick between two looks was spent frozen, and is no item's fault.
_LONGEST_TICK = 2.0
#: How long what an item leaves behind may go on, then how long it has after SIGTERM.
_LINGER = 2.0
_GRACE = 1.0
#: All items together may take so many times what one may before the rest is given back.
_TOGETHER = 10.0


def main() -> None:
    """Run the items of the order on standard input; exit with 1 if one of them failed."""
    order = json.load(sys.stdin.buffer)
    batch = Batch(order)
    batch.run()
    path = os.environ.get(REPORT)
    if path:
        spool.replace(path, batch.report())
    sys.exit(1 if batch.failed else 0)


class Batch:
    """The items of one order."""

    def __init__(self, order: spool.Facts) -> None:
        self.items: list[tuple[int, Any]] = [(number, cmd) for number, cmd in order["items"]]
        self.failed: dict[int, str] = {}
        self.given: list[int] = []
        self._ran = 0
        self._timeout: float | None = order["timeout"]
        self._room: int | None = order["max_output"]
        self._patience: float | None = order["patience"]
        self._halts: bool = order["halts"]
        self._host = str(order["host"])
        self._directory = os.path.dirname(os.environ.get(REPORT, ""))
        raw = {key: value for key, value in os.environb.items()}
        self._environment = {_text(key): _text(value) for key, value in raw.items()}
        for name in _OWN:
            self._environment.pop(name, None)
        self._cwd = os.getcwd()
        self._lines: list[bytes] = []
        self._wrote_at = monotonic()
        self._looked_at = monotonic()
        #: Seconds in which this program was able to run.
        self.clock = 0.0
        self.is_asked = False
        tree.adopt_orphans()
        self._wake, writer = os.pipe()
        for fd in (self._wake, writer):
            os.set_blocking(fd, False)
        for number in _HANDLED:
            signal.signal(number, self._signalled)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)

    def _signalled(self, number: int, frame: object) -> None:
        self.is_asked = self.is_asked or number in _ENDING

    def run(self) -> None:
        """Run the items in their order, until they are done, given back, or it is to end."""
        self.say({"host": self._host})
        while self.items and not self.is_asked:
            number, cmd = self.items.pop(0)
            item = _Item(self, number)
            reason, code = item.run(self._command(number, cmd), self._timeout, self._room)
            self._ran += 1
            if reason != "exit" or code != 0:
                self.failed[number] = f"exit {code}" if reason == "exit" else reason
                if self._halts:
                    self.give_back()
        self.flush()

    def report(self) -> spool.Facts:
        """Return what became of them."""
        left = [number for number, _ in self.items]
        told = {"ran": self._ran, "failed": self.failed, "given": self.given, "left": left}
        return {name: value for name, value in told.items() if value or name in ("ran", "failed")}

    def _command(self, number: int, cmd: Any) -> spool.Facts:
        argv = ["/bin/sh", "-c", cmd] if isinstance(cmd, str) else cmd
        environment = {**self._environment, "RELAYQ_ITEM": str(number)}
        facts = {"argv": argv, "env": environment, "cwd": self._cwd, "stdin": None}
        return {**facts, "umask": 0o022}

    def look(self, began: float) -> None:
        """Give the rest back when the item that began then takes long, or all of them do."""
        if self._patience is None or not self.items:
            return
        is_long = self.clock - began > self._patience
        if is_long or self.clock > self._patience * _TOGETHER:
            self.give_back()

    def give_back(self) -> None:
        """Run no further item; without room to say so, go on instead."""
        numbers = [number for number, _ in self.items]
        if not numbers or not self._directory:
            return
        try:
            spool.replace(os.path.join(self._directory, GIVEN), {"items": numbers})
        except OSError:
            return
        self.items, self.given = [], numbers
        self.say({"given": numbers})
        self.flush()

    def say(self, told: spool.Facts) -> None:
        """Say something, soon."""
        self._lines.append(json.dumps(told, separators=(",", ":")).encode() + b"\n")
        if monotonic() - self._wrote_at > _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what there is to say."""
        if self._lines:
            raw, self._lines = b"".join(self._lines), []
            with suppress(BrokenPipeError):
                spool.write_all(1, raw)
        self._wrote_at = monotonic()

    def wait(self, patience: float) -> list[int]:
        """Wait for something to read; returns the descriptors but the signals' own."""
        gathered = _GATHERED if self._lines else _TICK
        ready = self._poll.poll(int(min(patience, gathered) * 1000) + 1)
        now = monotonic()
        self.clock += min(now - self._looked_at, _LONGEST_TICK)
        self._looked_at = now
        if self._lines and now - self._wrote_at > _GATHERED:
            self.flush()
        found = [fd for fd, _ in ready]
        if self._wake in found:
            found.remove(self._wake)
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
        return found

    def watch(self, fd: int) -> None:
        """Have `wait` say when there is something to read."""
        os.set_blocking(fd, False)
        self._poll.register(fd, select.POLLIN)

    def close(self, fd: int) -> None:
        """Be done with a descriptor."""
        self._poll.unregister(fd)
        os.close(fd)


class _Item:
    """One item, from its start until nothing of it lives."""

    def __init__(self, batch: Batch, number: int) -> None:
        self._batch = batch
        self._number = number
        self._channels: dict[int, str] = {}
        self._written: dict[str, list[bytes]] = {"out": [], "err": []}
        self._size = 0
        self._status: int | None = None
        self._pid = 0
        self._is_childless = False
        self._reason = ""
        self._tree = tree.Tree()
        #: When it was asked to end, by the batch's clock; then it is killed, again and again.
        self._ended_at: float | None = None
        self._gone_at: float | None = None

    def run(
        self, command: spool.Facts, timeout: float | None, room: int | None
    ) -> tuple[str, int | None]:
        """Run it; returns how it ended, and its exit code if by itself."""
        batch = self._batch
        began = batch.clock
        try:
            started = leader.start(command)
        except OSError as error:
            return self._fail("host", f"relayq: {os.strerror(error.errno or 0).lower()}\n")
        if isinstance(started, leader.Failure):
            return self._not_started(started, command)
        self._pid = self._tree.group = started.pid
        for fd, channel in ((started.stdout, "out"), (started.stderr, "err")):
            assert fd is not None  # only a terminal has one stream for both
            batch.watch(fd)
            self._channels[fd] = channel
        while not self._is_over():
            for fd in batch.wait(self._patience(began, timeout)):
                self._read(fd)
            self._reap()
            batch.look(began)
            self._supervise(began, timeout, room)
        for fd in list(self._channels):
            while fd in self._channels and self._read(fd):
                pass
        for fd in self._channels:
            batch.close(fd)
        return self._tell(started, command, batch.clock - began)

    def _patience(self, began: float, timeout: float | None) -> float:
        if self._ended_at is not None or self._gone_at is not None:
            return 0.1
        left = _TICK if timeout is None else began + timeout - self._batch.clock
        return max(0.0, min(_TICK, left))

    def _is_over(self) -> bool:
        if self._status is None or not self._is_childless:
            return False
        if tree.IS_LINUX:
            return True
        try:
            os.killpg(self._pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False

    def _reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._status = status
        except ChildProcessError:
            self._is_childless = True

    def _supervise(self, began: float, timeout: float | None, room: int | None) -> None:
        """End it when it is to end, when its time is over, or when it writes too much."""
        now = self._batch.clock
        if self._status is not None and self._gone_at is None:
            self._gone_at = now
        if self._ended_at is None:
            reason = ""
            if self._batch.is_asked:
                reason = "cancelled"
            elif self._gone_at is None and timeout is not None and now - began >= timeout:
                reason = "timeout"
            elif room is not None and self._size > room:
                reason = "output"
            is_late = self._gone_at is not None and now - self._gone_at > _LINGER
            if reason or is_late:
                self._reason, self._ended_at = reason, now
                self._tree.terminate()
        elif now - self._ended_at > _GRACE:
            self._tree.kill()

    def _read(self, fd: int) -> bool:
        """Take a piece of output; False when there is none now."""
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return False
        channel = self._channels[fd]
        if not data:
            del self._channels[fd]
            self._batch.close(fd)
            return False
        self._size += len(data)
        self._written[channel].append(data)
        if sum(map(len, self._written[channel])) >= _PIECE:
            self._batch.say({"item": self._number, **self._output(channel)})
        return True

    def _output(self, *channels: str) -> spool.Facts:
        """Return what there is to say of its output, and forget it."""
        told = {}
        for channel in channels:
            if self._written[channel]:
                told[channel] = _text(b"".join(self._written[channel]))
                self._written[channel] = []
        return told

    def _not_started(self, failure: leader.Failure, command: spool.Facts) -> tuple[str, int | None]:
        if failure.is_hosts or failure.stage != "exec":
            reason = "host" if failure.is_hosts else "spawn"
            return self._fail(reason, f"relayq: {leader.explain(failure, command)}\n")
        code, line = leader.explain_as_shell(failure, command)
        return self._fail("exit", line, code)

    def _fail(self, reason: str, line: str, code: int | None = None) -> tuple[str, int | None]:
        told = {"item": self._number, "reason": reason, "err": line}
        self._batch.say(told if code is None else {**told, "exit": code})
        return reason, code

    def _tell(
        self, started: leader.Leader, command: spool.Facts, seconds: float
    ) -> tuple[str, int | None]:
        if (failure := leader.read_failure(started)) is not None:
            return self._not_started(failure, command)
        code = os.waitstatus_to_exitcode(self._status or 0)
        told: spool.Facts = {"item": self._number, "seconds": round(seconds, 4)}
        told |= {"exit": code} if code >= 0 else {"signal": -code}
        reason = self._reason or ("exit" if code >= 0 else "signal")
        self._batch.say({**told, "reason": reason, **self._output("out", "err")})
        if reason == "signal":
            return f"signal {-code}", None
        return reason, code if code >= 0 else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
