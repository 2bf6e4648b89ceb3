"""The fork server: a small process that has a shim attend to each attempt its worker names.

Forking this process costs a millisecond, starting an interpreter costs sixteen; and a shim whose
attempt has ended takes the next one, since the memory that it shares no longer with this process
needn't be copied again: two thirds of a short job's time. It ends when its worker's socket closes
and may be killed at any moment: shims don't need it. As a subreaper it inherits what a shim that
was killed leaves behind, and ends it. Standard library only, one thread.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import select
import signal
from contextlib import suppress
from time import monotonic
from typing import NoReturn

from relayq import clock
from relayq.host import shim, spool, tree

# A shim takes under a millisecond to report, unless the spool's disk hangs.
_PATIENCE = 10.0
_STRAYS_ROUND = 0.02
# How long a shim without an attempt is kept. Each has a megabyte and a half of its own.
_IDLE = 2.0
# Further shims end with their attempts, so that descriptors don't run out.
_MOST_KEPT = 64


class _Shim:
    """A shim that may take another attempt: it reads their names, and writes what it is about."""

    def __init__(self, pid: int, orders: int, reports: int) -> None:
        self.pid = pid
        self.idle_until: float | None = None
        self._orders = orders
        self.reports = reports
        self._heard = b""

    def order(self, request: bytes) -> bytes:
        """Have it attend to an attempt and return what it says; empty when it has died."""
        self.idle_until = None
        with suppress(BrokenPipeError):
            spool.write_all(self._orders, request + b"\n")
            return self._line()
        return b""

    def _line(self) -> bytes:
        while b"\n" not in self._heard:
            if not select.select([self.reports], [], [], _PATIENCE)[0]:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"it didn't take its lock within {_PATIENCE:.0f} s"
                )
            piece = os.read(self.reports, 4096)
            if not piece:
                return b""
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        if self._heard:
            self._note_idle()
        return line

    def hear(self) -> bool:
        """Take in that its attempt has ended; False when the shim itself has."""
        piece = os.read(self.reports, 4096)
        self._heard += piece
        self._note_idle()
        return bool(piece)

    def _note_idle(self) -> None:
        if self._heard == shim.IDLE + b"\n":
            self._heard = b""
            self.idle_until = monotonic() + _IDLE

    def close(self) -> None:
        """Let it end when its attempt has."""
        os.close(self._orders)
        os.close(self.reports)


class _ForkServer:
    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._boot = clock.boot_id()
        self._shims: set[int] = set()
        self._kept: dict[int, _Shim] = {}  # by the descriptor of its reports
        self._has_strays = False
        self._asked = b""
        self._wake, wake_writer = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self._poll = select.poll()
        for fd in (self._channel, self._wake):
            self._poll.register(fd, select.POLLIN)

    def serve(self) -> None:
        """Answer until the worker is gone."""
        self._tell(b"ready")
        while True:
            readable = {fd for fd, _ in self._poll.poll(self._patience())}
            if self._wake in readable:
                os.read(self._wake, 4096)
                self._reap()
            # Before the requests, which an idle shim answers sooner than a new one.
            for fd in readable & self._kept.keys():
                if not self._kept[fd].hear():
                    self._forget(self._kept[fd])
            if self._has_strays:
                self._end_strays()
            if self._channel in readable and not self._answer():
                return
            self._end_idle()

    def _patience(self) -> int | None:
        """Return the milliseconds until something is due."""
        if self._has_strays:
            return int(_STRAYS_ROUND * 1000)
        due = [one.idle_until for one in self._kept.values() if one.idle_until is not None]
        return max(0, int((min(due) - monotonic()) * 1000) + 1) if due else None

    def _answer(self) -> bool:
        """Read requests, a line of JSON each, and answer them; False: the worker is gone."""
        with suppress(ConnectionError):
            piece = os.read(self._channel, 65_536)
            *requests, self._asked = (self._asked + piece).split(b"\n")
            for request in requests:
                self._tell(json.dumps(self._attend(request)).encode())
            return bool(piece)
        return False

    def _tell(self, answer: bytes) -> None:
        os.write(self._channel, answer + b"\n")

    def _attend(self, request: bytes) -> dict[str, int | str]:
        """Give the attempt to an idle shim, or to a new one."""
        for one in [one for one in self._kept.values() if one.idle_until is not None]:
            answer = self._order(one, request)
            if answer is not None:
                return answer
        try:
            fresh = self._fork()
        except OSError as error:
            return {"error": f"can't fork a shim: {os.strerror(error.errno or errno.EAGAIN)}"}
        answer = self._order(fresh, request) or {"error": "the shim died"}
        if len(self._kept) > _MOST_KEPT and fresh.reports in self._kept:
            self._forget(fresh)
        return answer

    def _order(self, one: _Shim, request: bytes) -> dict[str, int | str] | None:
        """Return the answer to the request, None when that shim has died."""
        try:
            told = one.order(request)
        except TimeoutError as error:
            os.kill(one.pid, signal.SIGKILL)
            self._forget(one)
            return {"error": f"the shim is stuck: {error.strerror}"}
        if not told:
            self._forget(one)
            return None
        return {"shim": one.pid} if told == shim.READY else {"error": told.decode()}

    def _fork(self) -> _Shim:
        orders, our_orders = os.pipe()
        try:
            our_reports, reports = os.pipe()
        except OSError:
            os.close(orders)
            os.close(our_orders)
            raise
        try:
            pid = os.fork()
        except OSError:
            os.close(our_orders)
            os.close(our_reports)
            raise
        else:
            if pid == 0:
                _become_shim(orders, reports, self._boot)
        finally:
            os.close(orders)
            os.close(reports)
        fresh = _Shim(pid, our_orders, our_reports)
        self._shims.add(pid)
        self._kept[our_reports] = fresh
        self._poll.register(our_reports, select.POLLIN)
        return fresh

    def _forget(self, one: _Shim) -> None:
        del self._kept[one.reports]
        self._poll.unregister(one.reports)
        one.close()

    def _end_idle(self) -> None:
        """Let those go that have been idle for long."""
        now = monotonic()
        for one in list(self._kept.values()):
            if one.idle_until is not None and one.idle_until <= now:
                self._forget(one)

    def _reap(self) -> None:
        """Take the ended children; a shim that ended badly may have left its tree to us."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if status != 0 or pid not in self._shims:
                    self._has_strays = True
                self._shims.discard(pid)

    def _strays(self) -> list[tree.Process]:
        own = os.getpid()
        table = tree.processes()
        roots = [one for one in table.values() if one.parent == own and one.pid not in self._shims]
        return roots + tree.descendants(table, [one.pid for one in roots])

    def _end_strays(self) -> None:
        # Without a subreaper nothing is inherited, and what `ps` shows could be anybody's.
        if tree.IS_LINUX:
            tree.kill_all(self._strays)
        self._reap()
        self._has_strays = tree.IS_LINUX and bool(self._strays())


def _become_shim(orders: int, reports: int, boot: str) -> NoReturn:
    status = 70
    try:
        shim.main(orders, reports, boot)
        status = 0
    finally:
        os._exit(status)


def main(channel: int) -> None:
    """Serve the worker at the other end of the socket `channel`."""
    # Inherited dispositions would reach every job: with SIGCHLD ignored exit statuses are lost,
    # and a worker started with `&` ignores SIGINT.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in shim.HANDLED:
        signal.signal(number, lambda *_: None)
    tree.name_process("relayq-shims")
    tree.adopt_orphans()
    gc.freeze()
    _ForkServer(channel).serve()
