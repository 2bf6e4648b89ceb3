"""The steps of an attempt that files travel with: taking them in, the command, taking them out.

Each is a process of its own under the same shim, one after the other. So the command is started,
bounded, frozen and ended as it is without files, and its time limit counts nothing but itself.
Standard library only: the shim imports this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from relayq.host import spool
from relayq.host.spool import Facts
from relayq.host.written import Output
from relayq.model.output import split

IN, OUT = "in", "out"
ORDER = "stage.json"  # worker: what the two steps are to do
FAULT = "stage.fault"  # first step: why the command can't be started
SAID = "stage.output"  # what the steps wrote to their standard streams: nothing, hopefully
FILES = "files"  # a fault: a file isn't there, or isn't what it was
AWAY = "away"  # a fault: the files can't be had for now
_ITS_OWN = ("exit", "signal", "oom")
_UNSTARTED = ("host", "spawn", "output", *_ITS_OWN)
_TOLD = 400


class Step(Protocol):
    """A process, taken to its end."""

    def run(self) -> Facts:
        """Return its exit record."""


def run(
    directory: str, command: Facts, output: Output, begin: Callable[[Facts, Output], Step]
) -> Facts:
    """Take all steps, and return the exit record of the command."""
    if "secrets" in command:
        from relayq.host import masking  # a job with files alone has nothing to hide

        begin = masking.given(begin)
    if "stage" not in command:
        return begin(command, output).run()
    first = begin(*_step(directory, command, IN)).run()
    if first["reason"] != "exit" or first["code"] != 0:
        return _unstarted(directory, first)
    record = begin(command, output).run()
    if record["status"] == "unstarted" or record["reason"] not in _ITS_OWN:
        return record  # who ended it doesn't wait for files
    last = begin(*_step(directory, command, OUT)).run()
    if last["reason"] not in _UNSTARTED:
        record["reason"] = last["reason"]
    return record


def _step(directory: str, command: Facts, name: str) -> tuple[Facts, Output]:
    own = {
        **command,
        "argv": [*command["stage"], name, directory],
        "cwd": directory,
        "stdin": None,
        "feed": False,
        "tty": False,
        "timeout": None,
        "limits": None,
        "max_output": None,
        "secrets": None,
    }
    return own, Output(os.path.join(directory, SAID))


def _unstarted(directory: str, record: Facts) -> Facts:
    """Return the exit record of a command for which the files aren't there."""
    if record["reason"] not in _ITS_OWN:
        return spool.unstarted(record["reason"], record["error"])
    fault = spool.load(os.path.join(directory, FAULT))
    if fault is None:
        error = f"the files that it takes along could not be fetched{_last_line(directory)}"
        return spool.unstarted("host", error)
    return spool.unstarted(str(fault["fault"]), str(fault["error"]))


def _last_line(directory: str) -> str:
    try:
        with open(os.path.join(directory, SAID), "rb") as file:
            frames, _ = split(file.read())
    except OSError:
        return ""
    text = b"".join(frame.data for frame in frames).decode("utf-8", "replace")
    said = [line.strip() for line in text.split("\n") if line.strip()]
    return f": {said[-1][-_TOLD:]}" if said else ""
