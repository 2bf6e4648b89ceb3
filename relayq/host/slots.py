"""The slots of a host: room for one running attempt each, adopted ones included."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Slots:
    """Counts the free slots; `on_free` is called, from any thread, whenever one becomes free."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.on_free: Callable[[], None] = lambda: None
        self._used = 0
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many slots are free; negative while more was adopted than there are slots."""
        return self.total - self._used

    def take(self) -> bool:
        """Take a slot if one is free."""
        with self._lock:
            if self._used >= self.total:
                return False
            self._used += 1
            return True

    def take_anyway(self) -> None:
        """Take a slot for an attempt that runs already."""
        with self._lock:
            self._used += 1

    def give_back(self) -> None:
        """Free a slot."""
        with self._lock:
            self._used -= 1
        self.on_free()


class Loan:
    """The slot of an attempt, lent to others while its job only waits for jobs of its own.

    Else two such jobs on a host with two slots would wait for ever for what can only run there.
    A job that works on takes its slot back at once, so for a while there may be more than slots.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_out = False

    def look(self, *, waits: bool) -> bool:
        """Lend the slot if the job waits, take it back if not; True when it was just lent."""
        if waits == self._is_out:
            return False
        self._is_out = waits
        if waits:
            self._slots.give_back()
        else:
            self._slots.take_anyway()
        return waits
