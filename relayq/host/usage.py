"""How much of this machine's CPU goes to what isn't relayq's.

Asked twice a second while a job runs, so what is cheap comes first: the busy time of all CPUs, and
the times of own processes that are known already. Only if too much is left then, the table of all
processes is searched for own ones that came since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from relayq import clock
from relayq.host import tree

_PARTS = ("user", "nice", "system", "irq", "softirq")


class Times(NamedTuple):
    """The seconds that a process has used, and those of its children that it awaited.

    `age` are the seconds since its start, `started` tells it from a later namesake.
    """

    started: str
    age: float
    own: float
    awaited: float


class OthersCpu:
    """The percent of all CPU that went, since the last look, to what isn't relayq's.

    `roots` gives the pids that everything of ours is below. A share up to `bar` may be too high:
    what it is exactly doesn't matter there.
    """

    def __init__(self, roots: Callable[[], Sequence[int]], *, bar: float = 0.0) -> None:
        self._roots = roots
        self._bar = bar
        self._at, self._busy = clock.boottime(), _busy_seconds()
        self._known = self._found({})

    def read(self) -> float | None:
        """Return the percent, None when no time has passed."""
        at, busy = clock.boottime(), _busy_seconds()
        passed, spent = at - self._at, busy - self._busy
        if passed <= 0:
            return None
        self._at, self._busy = at, busy
        before, self._known = (
            self._known,
            {
                pid: now
                for pid, then in self._known.items()
                if (now := times(pid)) is not None and now.started == then.started
            },
        )
        room = passed * (os.cpu_count() or 1)
        others = spent - growth(before, self._known)
        if others / room * 100 > self._bar:
            fresh = self._found(self._known)
            others -= sum(_lately(fresh[pid], passed) for pid in fresh.keys() - self._known.keys())
            self._known = fresh
        return min(100.0, max(0.0, others / room * 100))

    def _found(self, known: Mapping[int, Times]) -> dict[int, Times]:
        """Return all own processes; the times of `known` ones as they were read just now."""
        table = tree.processes()
        roots = [pid for pid in self._roots() if pid in table]
        pids = [*roots, *(process.pid for process in tree.descendants(table, roots))]
        read = {pid: known.get(pid) or times(pid) for pid in pids}
        return {pid: one for pid, one in read.items() if one is not None}


def growth(before: Mapping[int, Times], now: Mapping[int, Times]) -> float:
    """Return the seconds that known processes used between two looks.

    One that has ended is found again in the awaited seconds of the one that reaped it. Who reaps
    without counting, or ended with it, makes the sum too low, but never lower than what the others
    used.
    """
    awaited = 0.0
    own = 0.0
    for pid, then in before.items():
        if pid in now:
            own += now[pid].own - then.own
            awaited += now[pid].awaited - then.awaited
        else:
            awaited -= then.own + then.awaited
    return own + max(0.0, awaited)


def _lately(one: Times, passed: float) -> float:
    """Return what a process that wasn't known before has used lately: all, if it is that young."""
    return (one.own + one.awaited) * min(1.0, passed / max(one.age, 0.001))


def times(pid: int) -> Times | None:
    """Return the times of a process, None when it is gone."""
    return _times_from_proc(pid) if tree.IS_LINUX else _times_from_psutil(pid)


def _times_from_proc(pid: int) -> Times | None:
    # A fifth of what psutil takes for it.
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            raw = file.read(1024)
    except OSError:
        return None
    return parse_stat(raw, clock.boottime())


def parse_stat(raw: bytes, at: float) -> Times | None:
    """Read Linux's /proc/PID/stat; `at` is the instant on the boot clock."""
    fields = raw[raw.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    user, system, children_user, children_system = (int(one) / _TICKS for one in fields[11:15])
    started = int(fields[19]) / _TICKS
    return Times(fields[19].decode(), at - started, user + system, children_user + children_system)


def _times_from_psutil(pid: int) -> Times | None:
    import psutil

    try:
        process = psutil.Process(pid)
        used, started = process.cpu_times(), process.create_time()
    except psutil.Error:
        return None
    awaited = used.children_user + used.children_system
    return Times(str(started), clock.now() - started, used.user + used.system, awaited)


def _busy_seconds() -> float:
    """Return the seconds that all CPUs have been busy."""
    import psutil

    spent = psutil.cpu_times()
    return float(sum(getattr(spent, part, 0.0) for part in _PARTS))


_TICKS = os.sysconf("SC_CLK_TCK")
