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
