"""Accounts of agents that aren't logged in on this host, as their last runs found out.

Such a host takes no job of theirs that another one could take as well, until one of its runs got
through, somebody logged in, or the agent's files changed.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from relayq import clock

log = logging.getLogger(__name__)

_LAPSES_AFTER = 1800.0


class Logins:
    """What is known of this host's logins, on the disk for the next worker as well.

    `files_of` returns the files that a login to an account changes.
    """

    def __init__(self, path: str, files_of: Callable[[str], Sequence[str]]) -> None:
        self._path = path
        self._files_of = files_of
        self._lock = threading.Lock()
        self._refused: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            read = json.load(file)
            self._refused = {
                str(name): dict(one)
                for name, one in (read.items() if isinstance(read, dict) else ())
                if isinstance(one, dict) and isinstance(one.get("reason"), str)
            }

    def refused(self) -> Mapping[str, str]:
        """Return why each account that isn't logged in is none, as its API or program said it."""
        with self._lock:
            self._keep(
                {
                    account: one
                    for account, one in self._refused.items()
                    if one.get("stamp") == self._stamp(account)
                    and abs(clock.now() - float(one.get("at", 0))) < _LAPSES_AFTER
                }
            )
            return {account: one["reason"] for account, one in self._refused.items()}

    def refuse(self, account: str, reason: str) -> bool:
        """Note that an account isn't logged in; False if that was known."""
        with self._lock:
            known = self._refused.get(account)
            said = " ".join(reason.split())[:200]
            one = {"reason": said, "at": clock.now(), "stamp": self._stamp(account)}
            self._keep({**self._refused, account: one})
            return known is None

    def accept(self, account: str) -> bool:
        """Note that an account, or any account of an agent, may work; False if that was known."""
        with self._lock:
            before = self._refused
            left = {a: one for a, one in before.items() if account not in (a, a.partition("/")[0])}
            self._keep(left)
            return len(left) < len(before)

    def _stamp(self, account: str) -> list[list[int]]:
        stamps = []
        for file in self._files_of(account):
            try:
                state = os.stat(os.path.expanduser(file))
                stamps.append([state.st_mtime_ns, state.st_size])
            except OSError:
                stamps.append([])
        return stamps

    def _keep(self, refused: dict[str, dict[str, Any]]) -> None:
        if refused == self._refused:
            return
        self._refused = refused
        draft = f"{self._path}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(refused, file)
            os.replace(draft, self._path)
        except OSError as error:
            # The next worker finds out again by a job of its own.
            log.warning("can't write %s: %s", self._path, error)
