"""The log of a worker that is a service: a file a day, the last two weeks of them."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from relayq import clock
from relayq.privileges import as_owner

_KEPT = 14


def newest_log(folder: Path) -> Path | None:
    """Return the log of the latest day, whatever the host was called then; None without any."""
    return max(folder.glob("*_????????.log"), key=lambda one: one.name[-12:], default=None)


class DailyLog(logging.FileHandler):
    """Writes to `<host>_<YYYYMMDD>.log`, and removes what is older than two weeks."""

    def __init__(self, folder: Path, host: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._host = host
        super().__init__(self._today(), delay=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line into the file of its day."""
        today = str(self._today())
        if today != self.baseFilename:
            if self.stream is not None:
                self.stream.close()
            self.stream, self.baseFilename = None, today
        if self.stream is None:
            try:
                # The worker may be somebody else by now, and its log is root's.
                with as_owner():
                    self._remove_old()
                    self.stream = self._open()
            except OSError:
                # A full disk must not break whoever has something to say.
                self.handleError(record)
                return
        super().emit(record)

    def _today(self) -> Path:
        day = datetime.fromtimestamp(clock.now()).strftime("%Y%m%d")
        return (self._folder / f"{self._host}_{day}.log").absolute()

    def _remove_old(self) -> None:
        for path in sorted(self._folder.glob("*_????????.log"), key=lambda one: one.name[-12:])[
            : 1 - _KEPT
        ]:
            with suppress(OSError):
                path.unlink()
