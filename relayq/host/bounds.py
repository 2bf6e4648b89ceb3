"""What bounds an attempt: the worker's permit and wishes, and the time that it has run.

Standard library only: the shim imports this module.
"""

from __future__ import annotations

import os
from time import monotonic  # stands still while the machine sleeps, as a time limit should

from relayq import clock
from relayq.host import spool


class Wishes:
    """What the worker wants: its permit and the attempt's control file, as last read."""

    def __init__(self, directory: str, permit: str, boot: str) -> None:
        self._control = os.path.join(directory, spool.CONTROL)
        self._permit = permit
        self._boot = boot
        self._deadline = 0.0
        self._is_paused = False
        self.kill: str | None = None
        self.grace: float | None = None

    def read(self) -> None:
        """Read both files."""
        permit = spool.load(self._permit) or {}
        is_ours = permit.get("boot") == self._boot
        self._deadline = float(permit.get("deadline") or 0.0) if is_ours else 0.0
        control = spool.load(self._control) or {}
        self._is_paused = control.get("op") == "freeze"
        if control.get("op") == "kill":
            self.kill = str(control.get("reason") or "cancel")
            self.grace = control.get("grace")

    def permitted(self) -> float:
        """Return for how many seconds from now the job may run, 0 when it may not."""
        return 0.0 if self._is_paused else max(0.0, self._deadline - clock.boottime())


class RunClock:
    """The run time that a time limit counts: without the time spent frozen."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Go, or go on."""
        self._since = monotonic() if self._since is None else self._since

    def stop(self) -> None:
        """Stand still."""
        self._before, self._since = self.read(), None

    def read(self) -> float:
        """Return the seconds counted so far."""
        return self._before + (0.0 if self._since is None else monotonic() - self._since)
