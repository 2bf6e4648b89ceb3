"""What the file service does beside the requests: announcing itself, sweeping, making room.

The broker isn't needed: while it is away, files come and go, and nothing is swept.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Sequence

from relayq import clock, embedded
from relayq.artifacts import Artifacts
from relayq.config import Config
from relayq.errors import BrokerUnavailable, RelayqError
from relayq.exporting import Exporter, keeps_fleet
from relayq.parsing import size_text
from relayq.serve.shelf import PARTIAL_KEPT, Content, Shelf
from relayq.signing import Signer
from relayq.store import Store, connect
from relayq.store.artifacts import User

log = logging.getLogger(__name__)

_ANNOUNCE = 15.0
_SWEEP = 600.0
#: A content that no job refers to (yet): its submitter may still be about to.
_UNUSED_KEPT = 86_400.0


class Keeping:
    """What is done beside the requests: announcing, sweeping, making room."""

    def __init__(
        self, config: Config, shelf: Shelf, signer: Signer, *, host: str, port: int
    ) -> None:
        self._config = config
        self._signer = signer
        self._shelf = shelf
        self._facts = {"host": host, "port": port, "url": config.serve.url}
        self._exporter = Exporter(config) if keeps_fleet(config) else None
        self._name = secrets.token_hex(8)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="keeping")
        self._making_room = threading.Lock()
        self._store: Store | None = None
        self._complaint = ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and say so to the fleet."""
        self._ended.set()
        self._thread.join(5)
        try:
            if (store := self._connected()) is not None:
                self._artifacts(store).withdraw(self._name)
        except BrokerUnavailable as error:
            log.info("can't say that the file service goes: %s", error)

    def _connected(self) -> Store | None:
        """Return the store; None as long as the private broker was never started."""
        if self._store is None:
            url = self._config.broker_url or embedded.broker_url(self._config)
            self._store = None if url is None else connect(url)
        return self._store

    def _run(self) -> None:
        swept_at = clock.boottime() - _SWEEP + _ANNOUNCE
        while True:
            try:
                self._announce()
                self._keep_events()
                if clock.boottime() > swept_at + _SWEEP:
                    self._sweep()
                    swept_at = clock.boottime()
            except (RelayqError, OSError) as error:
                self._complain(str(error))
            if self._ended.wait(_ANNOUNCE):
                return

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            log.warning("%s", text)
            self._complaint = text

    def _announce(self) -> None:
        store = self._connected()
        if store is None:
            return
        other = self._artifacts(store).announce(self._name, self._facts)
        if other is None:
            self._complaint = ""
        else:
            self._complain(f"another file service ({other}) is this fleet's; waiting for its end")

    def _keep_events(self) -> None:
        """Keep the fleet's events, where no worker of this machine does."""
        store = self._connected()
        if self._exporter is not None and store is not None:
            self._exporter.look(store)

    def _artifacts(self, store: Store) -> Artifacts:
        return Artifacts(store, self._config, self._signer)

    def _sweep(self, *, room: int = 0) -> None:
        keep = self._config.serve.keep
        removed = self._shelf.sweep(keep=keep, is_needed=self._is_needed, room=room)
        self._shelf.remove_partials(older_than=PARTIAL_KEPT)
        if removed:
            size = sum(content.size for content in removed)
            log.info("removed %d files that nobody needs, %s", len(removed), size_text(size))

    def make_room(self, more: int) -> None:
        """Remove what nobody needs until there is room for so many bytes, if that can be done."""
        with self._making_room:
            try:
                self._sweep(room=more)
            except (RelayqError, OSError) as error:
                self._complain(str(error))

    def _is_needed(self, content: Content) -> bool:
        """Tell whether a content must stay; also when that can't be known."""
        store = self._connected()
        if store is None:
            return True
        return is_needed(content, store.artifacts.users(content.sha256), clock.now())


def is_needed(content: Content, users: Sequence[User], now: float) -> bool:
    """Tell whether a content must stay, even when there is no room for others.

    Inputs of jobs that haven't ended are needed, and results as long as their job's record.
    """
    if not users:
        return content.used_at > now - _UNUSED_KEPT
    return any(user.is_result or not user.has_ended for user in users)
