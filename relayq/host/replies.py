"""Sends the output on this host's disk to followers, as fast as each of them reads.

A follower that is slow holds up its own reply alone: never the job, nor another follower.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from relayq import clock
from relayq.errors import BrokerUnavailable
from relayq.host import attempts
from relayq.store import Store
from relayq.store.logs import WINDOW, Piece

log = logging.getLogger(__name__)

#: How often a file is looked at that somebody follows; first bytes arrive within twice that.
_LOOK = 0.03
_FULL_LOOK = 0.01
#: A job that has been silent for so long is looked at less often: it may be for hours.
_SILENCE = 2.0
_QUIET_LOOK = 0.1


class Replies:
    """The replies that are being written, a thread each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._serving: set[str] = set()
        self._lock = threading.Lock()

    def serve(
        self,
        id: str,
        reply: str,
        directory: Path | None,
        *,
        position: int = 0,
        has_ended: Callable[[float], bool] = lambda _: True,
    ) -> None:
        """Send an attempt's output from `position` on to a reply, in a thread of its own.

        `has_ended(patience)` waits that long for the attempt's end and says whether it came.
        """
        with self._lock:
            if reply in self._serving:
                return
            self._serving.add(reply)
        arguments = (id, reply, directory, position, has_ended)
        threading.Thread(
            target=self._serve, args=arguments, name=f"reply-{reply}", daemon=True
        ).start()

    def _serve(
        self,
        id: str,
        reply: str,
        directory: Path | None,
        position: int,
        has_ended: Callable[[float], bool],
    ) -> None:
        try:
            if directory is None:
                error = "the output is no longer on this host"
                self._send(reply, Piece(0, position, b"", end=position, error=error))
            elif not self._stream(reply, directory, position, has_ended):
                self._store.logs.unfollow(id, reply)
        except BrokerUnavailable as error:
            log.info("a follower of %s was left: %s", id, error, extra={"job": id})
        finally:
            with self._lock:
                self._serving.discard(reply)

    def _stream(
        self, reply: str, directory: Path, position: int, has_ended: Callable[[float], bool]
    ) -> bool:
        """Send all there is until the attempt has ended; False when the follower is gone."""
        token = attempts.token_of(directory)
        attempt = token.attempt if token else 0
        ended = False
        wrote_at = clock.boottime()
        while True:
            frames = attempts.read_output(directory, position)
            if frames:
                wrote_at = clock.boottime()
                acked = self._send(reply, Piece(attempt, position, frames))
                position += len(frames)
                if acked is None or not self._is_in_window(reply, position, acked):
                    return False
            elif ended:
                end = Piece(attempt, position, b"", end=position)
                return self._send(reply, end) is not None
            else:
                is_quiet = clock.boottime() - wrote_at > _SILENCE
                ended = has_ended(_QUIET_LOOK if is_quiet else _LOOK)

    def _is_in_window(self, reply: str, position: int, acked: int | None) -> bool:
        while acked is not None and position - acked > WINDOW:
            clock.sleep(_FULL_LOOK)
            acked = self._store.logs.acked(reply)
        return acked is not None

    def _send(self, reply: str, piece: Piece) -> int | None:
        return self._store.logs.send(reply, piece)
