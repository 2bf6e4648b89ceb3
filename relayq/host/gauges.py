"""What an attempt says of its progress, on the way from its desk to its job's record."""

from __future__ import annotations

import logging
import os

from relayq import clock
from relayq.errors import BrokerUnavailable
from relayq.host import desk, progress
from relayq.host.delivery import Attempt
from relayq.store import Store

log = logging.getLogger(__name__)

#: How often, in seconds, a job's word is looked for; more often nobody could read it.
_EVERY = 1.0


class Gauge:
    """Brings what one attempt says, when that is something new."""

    def __init__(self, store: Store, attempt: Attempt) -> None:
        self._store = store
        self._token = attempt.token
        self._path = os.path.join(attempt.directory, desk.DESK, progress.PROGRESS)
        self._due_at = 0.0
        self._seen = (0, 0)

    def look(self) -> None:
        """Bring what is new, at most once a second; without a broker it is tried again."""
        now = clock.boottime()
        if now < self._due_at:
            return
        self._due_at = now + _EVERY
        try:
            found = os.stat(self._path)
        except OSError:
            return
        # A file replaced within one tick of the file system's clock is another file.
        version = (found.st_mtime_ns, found.st_ino)
        if version == self._seen:
            return
        said = progress.read(self._path)
        try:
            if said is not None:
                self._store.progress.note(self._token, said)
        except BrokerUnavailable as error:
            log.debug("no broker for the progress of %s: %s", self._token.id, error)
        else:
            self._seen = version
