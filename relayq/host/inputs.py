"""Takes a job's standard input from the broker to this host's disk, where its shim reads it."""

from __future__ import annotations

import logging
import threading
from typing import BinaryIO

from relayq.errors import BrokerUnavailable
from relayq.host.delivery import Attempt
from relayq.host.feed import INPUT, INPUT_END
from relayq.store import Store
from relayq.store.inputs import InputPiece

log = logging.getLogger(__name__)

_PATIENCE = 3.0
_AGAIN = 1.0


class Inputs:
    """The inputs that are being taken, a thread each."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def take(self, attempt: Attempt) -> None:
        """Take the input of an attempt until it ends, from where its file ends."""
        if (attempt.directory / INPUT_END).exists():
            return
        name = f"input-{attempt.token.id}"
        threading.Thread(target=self._take, args=(attempt,), name=name, daemon=True).start()

    def _take(self, attempt: Attempt) -> None:
        since = b"0"
        try:
            with (attempt.directory / INPUT).open("ab") as file:
                while not attempt.has_ended(0.0):
                    pieces = self._receive(attempt, since, file.tell())
                    for piece in pieces:
                        since = piece.entry
                        self._write(attempt, file, piece)
                        if piece.is_end:
                            return
        except OSError as error:
            # A job that misses part of its input must not end as if it had all of it.
            log.error("can't store the input of %s: %s", attempt.token.id, error)
            if attempt.shim is not None and attempt.directory.exists():
                attempt.shim.kill("input", 0.0)

    def _receive(self, attempt: Attempt, since: bytes, position: int) -> list[InputPiece]:
        try:
            return self._store.inputs.receive(
                attempt.token.id, since=since, position=position, patience=_PATIENCE
            )
        except BrokerUnavailable:
            attempt.has_ended(_AGAIN)
            return []

    def _write(self, attempt: Attempt, file: BinaryIO, piece: InputPiece) -> None:
        position = file.tell()
        if piece.position > position:
            raise OSError(f"bytes {position} to {piece.position} never came")
        file.write(piece.data[position - piece.position :])
        file.flush()
        if piece.size is not None and attempt.shim is not None:
            attempt.shim.resize(*piece.size)
        if piece.is_end:
            (attempt.directory / INPUT_END).touch()
            self._store.inputs.receive(
                attempt.token.id, since=piece.entry, position=file.tell(), patience=0.0
            )
        if attempt.shim is not None:
            attempt.shim.look()
