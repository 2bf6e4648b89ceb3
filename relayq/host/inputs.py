"""Takes a job's standard input from the broker to this host's disk, where its shim reads it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import BinaryIO

from relayq.errors import BadSignature, BrokerUnavailable
from relayq.feeding import InputPiece, check_piece
from relayq.host.delivery import Attempt
from relayq.host.feed import INPUT, INPUT_END
from relayq.signing import Signer
from relayq.store import Store

log = logging.getLogger(__name__)

_PATIENCE = 3.0
_AGAIN = 1.0


class Inputs:
    """The inputs that are being taken, a thread each."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        #: Raises BadSignature for what somebody typed who has no say here.
        self.may_hear: Callable[[Attempt, bytes], None] = lambda attempt, signed: None

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
                        if not self._is_genuine(attempt, piece):
                            continue
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

    def _is_genuine(self, attempt: Attempt, piece: InputPiece) -> bool:
        try:
            check_piece(self._signer, attempt.token.id, piece)
            self.may_hear(attempt, piece.signature)
        except BadSignature as error:
            log.warning("refused input for %s: %s", attempt.token.id, error.message)
            return False
        return True

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
