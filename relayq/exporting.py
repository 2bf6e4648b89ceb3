"""The fleet's events on the disk of the broker's machine, before Redis forgets them.

A worker does it, or the file service: one at a time, and the last entry says where to go on.
"""

from __future__ import annotations

import fcntl
import logging
import os
from typing import Any

from relayq import clock
from relayq.config import Config
from relayq.ledger import fleet_ledger
from relayq.model.audit import CUT, parsed
from relayq.model.events import Event
from relayq.privileges import as_owner
from relayq.store import Store

log = logging.getLogger(__name__)

#: How often it is done.
EVERY = 5.0
_PAGE = 500
#: Events are among the last entries, unless thousands of others were written by hand.
_LOOK_BACK = 2**20
#: What is named as in `relayq events --json`, but for what an entry of the ledger has itself.
_OWN = ("what", "at")
_MARK = "event"
#: What the entry with a host's head is called; how often hosts are asked, and one is noted anew.
HEAD = "head"
_HEADS_EVERY = 60.0
_HEAD_ANEW = 3600.0


class Exporter:
    """Keeps the fleet's events here."""

    def __init__(self, config: Config) -> None:
        self._ledger = fleet_ledger(config.home)
        self._keep = config.audit.keep
        self._lock: int | None = None
        #: Up to which event they are known to be here, "" when that must be looked up.
        self._place = ""
        #: By host the head that was noted last, and when, on the clock of this boot.
        self._heads: dict[str, tuple[str, float]] = {}
        self._heads_at = -_HEADS_EVERY

    def look(self, store: Store) -> None:
        """Keep what is new, unless another process does."""
        if not self._is_ours():
            return
        if not self._place:
            self._place = self._last_place()
        kept = 0
        while True:
            found, is_gap = store.events.after(self._place, count=_PAGE)
            if not found:
                break
            entries: list[tuple[str, dict[str, Any]]] = []
            if is_gap:
                reason = "Redis had forgotten what came next"
                entries.append((CUT, {"reason": reason, "from": self._place, "to": found[0].id}))
            entries += [(event.what, _facts(event)) for event in found]
            if not self._ledger.append_all(entries, come_again=True):
                break
            self._place = found[-1].id
            kept += len(found)
            if len(found) < _PAGE:
                break
        if kept + self._note_heads(store):
            self._ledger.sync()

    def _note_heads(self, store: Store) -> int:
        """Keep the heads of the hosts' own trails, which they can't write anew unnoticed then."""
        now = clock.boottime()
        if now < self._heads_at + _HEADS_EVERY:
            return 0
        noted = 0
        for host in store.hosts.list(online_within=_HEADS_EVERY):
            head = str(host.facts.get("audit") or "")
            if head:
                self._heads_at = now
            known, since = self._heads.get(host.name, ("", -_HEAD_ANEW))
            is_due = head not in ("", known) and now >= since + _HEAD_ANEW
            facts = {"host": host.name, "install": host.install, "head": head}
            if is_due and self._ledger.append_all([(HEAD, facts)], come_again=True):
                self._heads[host.name] = (head, now)
                noted += 1
        return noted

    def tidy(self) -> None:
        """Remove what is older than it is to be kept."""
        if self._is_ours():
            self._ledger.prune(older_than=self._keep)

    def _is_ours(self) -> bool:
        if self._lock is None:
            with as_owner():
                os.makedirs(self._ledger.folder, mode=0o700, exist_ok=True)
                path = self._ledger.folder / "exporter.lock"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def _last_place(self) -> str:
        """Return the id of the last event that is here, "0" before there is one."""
        place = "0"
        for raw in self._ledger.tail(_LOOK_BACK):
            entry = parsed(raw)
            if entry is not None and _MARK in entry.facts:
                place = str(entry.facts[_MARK])
        return place


def keeps_fleet(config: Config) -> bool:
    """Whether the fleet's events are to be kept on this machine."""
    return config.broker_url is None if config.audit.fleet is None else config.audit.fleet


def _facts(event: Event) -> dict[str, Any]:
    """Return an event as the ledger keeps it; `happened_at` is by the broker's clock."""
    facts = {name: value for name, value in event.as_dict().items() if name not in (*_OWN, "id")}
    if facts.get("count") == 1:
        del facts["count"]
    return {_MARK: event.id, "happened_at": event.at, **facts}
