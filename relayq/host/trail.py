"""This host's part of the audit trail: what was started here, how it ended, what was refused.

An attempt is noted before it starts: nothing runs here of which nobody knows. A disk without room
stops no job, and the trail says afterwards how much is missing of it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from relayq.config import Config
from relayq.host.delivery import Attempt
from relayq.host.process import ExitRecord
from relayq.kinds import Verdict
from relayq.ledger import Ledger, host_ledger
from relayq.version import __version__

STARTED, ENDED, REFUSED, WORKER = "started", "ended", "refused", "worker"
#: How far back an end is looked for that a worker before this one may have noted.
_LOOK_BACK = 4 * 2**20


class Trail:
    """What this worker notes."""

    def __init__(self, config: Config, host: str, user: str) -> None:
        self._host = host
        self._user = user
        self._keep = config.audit.keep
        self.ledger: Ledger = host_ledger(config.home)

    @property
    def head(self) -> str:
        """The number and the hash of its last entry, as `relayq audit verify` prints them."""
        number, digest = self.ledger.head
        return f"{number}:{digest}"

    def begin(self, key_id: str) -> None:
        """Note that a worker begins here."""
        self.ledger.append(
            WORKER,
            host=self._host,
            pid=os.getpid(),
            version=__version__,
            key=key_id,
            user=self._user,
        )

    def started(self, attempt: Attempt) -> None:
        """Note an attempt that is about to start."""
        self.ledger.append(STARTED, **self._about(attempt), user=self._user)

    def refused(self, attempt: Attempt, why: str | None) -> None:
        """Note a job that may not run here."""
        self.ledger.append(REFUSED, **self._about(attempt), why=why)

    def ended(self, attempt: Attempt, verdict: Verdict | None, record: ExitRecord | None) -> None:
        """Note how an attempt ended; without a verdict nobody wants it any more, or can know."""
        if attempt.is_adopted and self._is_noted(attempt):
            return
        reason = "lost" if record is None else "stale"
        self.ledger.append(
            ENDED,
            job=attempt.token.id,
            attempt=attempt.token.attempt,
            uid=attempt.token.uid,
            state=None if verdict is None else verdict.state.value,
            reason=reason if verdict is None else verdict.reason,
            exit=None if record is None else record.code,
            signal=None if record is None else record.signal,
            run_time=None if record is None else round(record.run_time, 3),
        )

    def tidy(self) -> None:
        """Remove what is older than it is to be kept."""
        self.ledger.prune(older_than=self._keep)

    def _about(self, attempt: Attempt) -> dict[str, Any]:
        signed = attempt.note.signed
        return {
            "job": attempt.token.id,
            "attempt": attempt.token.attempt,
            "uid": attempt.token.uid,
            "host": self._host,
            **attempt.about,
            "key": signed[:64].partition(b" ")[0].decode("ascii", "replace"),
            "spec": hashlib.sha256(signed).hexdigest(),
        }

    def _is_noted(self, attempt: Attempt) -> bool:
        """Whether the worker before this one noted it, and could not deliver the outcome."""
        mark = f'"uid":"{attempt.token.uid}"'.encode()
        return any(mark in raw and b'"what":"ended"' in raw for raw in self.ledger.tail(_LOOK_BACK))
