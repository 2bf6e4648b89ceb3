"""What bounds an attempt: the worker's permit and wishes, its run time, its control groups.

Standard library only: the shim imports this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic  # stands still while the machine sleeps, as a time limit should
from typing import TYPE_CHECKING

from relayq import clock
from relayq.host import spool
from relayq.host.spool import Facts

if TYPE_CHECKING:
    from relayq.host import cgroups


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


class Limits:
    """The limits that the kernel holds; an attempt without any costs nothing here."""

    def __init__(self, name: str, limits: dict[str, int] | None) -> None:
        self._name = name
        self._limits = limits
        self._group: cgroups.Group | None = None

    def place(self) -> Callable[[int], None] | None:
        """Return what puts a process under the limits, None when there are none."""
        if not self._limits:
            return None
        from relayq.host import cgroups  # no job without limits pays for it

        self._group = cgroups.Group(self._name, self._limits)
        return self._group.add

    def settle(self) -> Facts:
        """Return what the limits did, for the exit record, and end them."""
        if not self._limits or self._group is None:
            return {}
        group, self._group = self._group, None
        told = {
            "oom": group.was_out_of_memory(),
            "refused": group.refused_processes(),
            "skipped": group.skipped,
        }
        group.remove()
        return told
