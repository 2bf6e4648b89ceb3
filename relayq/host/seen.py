"""Which jobs this host has brought to an end: what is replayed isn't run again.

A small database beside the spool. Of what a power failure takes only the last seconds are missing.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from relayq import clock
from relayq.privileges import as_owner

log = logging.getLogger(__name__)

FILE = "seen.db"
_TABLES = """
CREATE TABLE IF NOT EXISTS ended (
    id TEXT PRIMARY KEY, until REAL, tell_until REAL, outcome BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heard (word TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
"""
#: How long the outcome of a job is kept: more than what a broker forgets that is rolled back.
_KEEP_OUTCOME = 900.0
_PRUNE_EVERY = 300.0

T = TypeVar("T")


class Seen:
    """The ids of ended jobs, and the words of people that had one run again.

    Each is kept until the job's spec is too old to start anyway.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._prune_at = 0.0

    def close(self) -> None:
        """Write everything out."""
        with self._lock, as_owner():
            self._drop()

    def has_ended(self, id: str, until: float) -> bool:
        """Whether this host has brought the job to an end, by a word that is good as long as this.

        One that is good for longer was given later.
        """
        query = "SELECT 1 FROM ended WHERE id = ? AND until >= ?"
        return self._do(
            lambda db: db.execute(query, (id, until)).fetchone() is not None, default=False
        )

    def outcome_of(self, id: str) -> bytes | None:
        """Return how the job ended, signed, if that was of late."""
        query = "SELECT outcome FROM ended WHERE id = ?"
        row = self._do(lambda db: db.execute(query, (id,)).fetchone(), default=None)
        return None if row is None or row[0] is None else bytes(row[0])

    def end(self, id: str, until: float, outcome: bytes | None = None) -> None:
        """Note that this host has brought the job to an end, and how."""

        def note(database: sqlite3.Connection) -> None:
            row = (id, until, clock.now() + _KEEP_OUTCOME, outcome)
            database.execute("INSERT OR REPLACE INTO ended VALUES (?, ?, ?, ?)", row)
            self._prune(database)

        self._do(note, default=None)

    def hear(self, id: str, word: str, until: float) -> bool:
        """Take a person's word for it that the job may run again; False if that was used before."""

        def take(database: sqlite3.Connection) -> bool:
            # Both or neither: a word that was noted alone would be used up for nothing.
            database.execute("BEGIN IMMEDIATE")
            added = database.execute(
                "INSERT OR IGNORE INTO heard VALUES (?, ?)", (f"{id} {word}", until)
            )
            if added.rowcount:
                database.execute("DELETE FROM ended WHERE id = ?", (id,))
            database.execute("COMMIT")
            return bool(added.rowcount)

        return self._do(take, default=True)

    def _prune(self, database: sqlite3.Connection) -> None:
        if clock.boottime() < self._prune_at:
            return
        self._prune_at = clock.boottime() + _PRUNE_EVERY
        now = (clock.now(),)
        forget = "UPDATE ended SET outcome = NULL WHERE outcome IS NOT NULL AND tell_until < ?"
        database.execute(forget, now)
        for table in ("ended", "heard"):
            database.execute(f"DELETE FROM {table} WHERE until < ?", now)

    def _do(self, act: Callable[[sqlite3.Connection], T], *, default: T) -> T:
        """Do something in the database; one that can't be read is begun anew.

        A full disk must not keep jobs from ending: then it is only said that nothing was noted.
        """
        with self._lock, as_owner():
            try:
                return act(self._open())
            except (sqlite3.DatabaseError, OSError) as error:
                log.warning("what has ended here can't be noted in %s: %s", self._path, error)
                self._drop()
                if not isinstance(error, sqlite3.OperationalError | OSError):
                    with suppress(OSError):
                        self._path.unlink()
                return default

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            # One connection for all threads, which take turns.
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._database = database
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_TABLES)
        return self._database

    def _drop(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
