"""The program that takes the files of a job in, or out, as a process under the job's shim.

Asked to end, it ends at once and leaves nothing behind under any name.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from relayq.errors import RelayqError
from relayq.host import spool
from relayq.host.collecting import collect
from relayq.host.progress import tell
from relayq.host.stages import FAULT, IN
from relayq.host.staging import Order, fault_of
from relayq.host.taking import take
from relayq.model.changes import Changes
from relayq.model.progress import Progress

_CANCELLED = 143


class _Ended(BaseException):
    """Somebody asked this process to end."""


def main() -> None:
    """Take the step that the first argument names, in the attempt's directory, the second one."""
    name, directory = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    status = 1
    try:
        status = _stepped(name, directory)
    except _Ended:
        status = _CANCELLED
    sys.stdout.flush()
    # Without waiting for a thread of a library.
    os._exit(status)


def _end(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise _Ended


def _stepped(name: str, directory: str) -> int:
    order = Order.read(directory)
    if name != IN:
        changes, errors = _left(order)
        collect(order, os.environ, changes, errors)
        return 0
    try:
        if order.git is not None:
            from relayq.host import worktrees  # what starts programs takes longer to load

            worktrees.make(order)
        take(order, os.environ)
    except (OSError, RelayqError) as error:
        fault = fault_of(error)
        told = {"fault": fault.fault, "error": fault.message}
        spool.write_new(os.path.join(directory, FAULT), told)
        return 1
    finally:
        tell(os.environ, Progress(None), at_once=True)
    return 0


def _left(order: Order) -> tuple[Changes | None, list[str]]:
    """Return what the job made of its worktree, and why that can't be had."""
    if order.git is None:
        return None, []
    from relayq.host import worktrees

    try:
        return worktrees.leave(order), []
    except (OSError, RelayqError) as error:
        return None, [f"its changes can't be committed: {fault_of(error).message}"]
