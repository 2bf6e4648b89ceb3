"""The fork server: a small process that forks a shim for each attempt its worker names.

Forking this process costs a millisecond, starting an interpreter costs sixteen. It ends when its
worker's socket closes and may be killed at any moment: shims don't need it. As a subreaper it
inherits what a shim that was killed leaves behind, and ends it. Standard library only, one
thread.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import select
import signal
from contextlib import suppress
from typing import NoReturn

from relayq import clock
from relayq.host import shim, tree

# A shim takes under a millisecond to report, unless the spool's disk hangs.
_PATIENCE = 10.0
_STRAYS_ROUND = 0.02


class _ForkServer:
    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._boot = clock.boot_id()
        self._shims: set[int] = set()
        self._has_strays = False
        self._asked = b""
        self._wake, wake_writer = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Answer until the worker is gone."""
        self._tell(b"ready")
        while True:
            patience = _STRAYS_ROUND if self._has_strays else None
            readable, _, _ = select.select([self._channel, self._wake], [], [], patience)
            if self._wake in readable:
                os.read(self._wake, 4096)
                self._reap()
            if self._has_strays:
                self._end_strays()
            if self._channel in readable and not self._answer():
                return

    def _answer(self) -> bool:
        """Read requests, one JSON string a line, and answer each; False: the worker is gone."""
        with suppress(ConnectionError):
            piece = os.read(self._channel, 65_536)
            *requests, self._asked = (self._asked + piece).split(b"\n")
            for request in requests:
                self._tell(json.dumps(self._start_shim(json.loads(request))).encode())
            return bool(piece)
        return False

    def _tell(self, answer: bytes) -> None:
        os.write(self._channel, answer + b"\n")

    def _start_shim(self, directory: str) -> dict[str, int | str]:
        reader, writer = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                _become_shim(directory, writer, self._boot)
            os.close(writer)
            writer = -1
            self._shims.add(pid)
            if not select.select([reader], [], [], _PATIENCE)[0]:
                os.kill(pid, signal.SIGKILL)
                return {"error": f"the shim didn't take its lock within {_PATIENCE:.0f} s"}
            told = os.read(reader, 1024).decode()
        except OSError as error:
            return {"error": f"can't fork a shim: {os.strerror(error.errno or errno.EAGAIN)}"}
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        return {"shim": pid} if told == shim.READY else {"error": told or "the shim died"}

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


def _become_shim(directory: str, ready: int, boot: str) -> NoReturn:
    status = 70
    try:
        shim.main(directory, ready, boot)
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
