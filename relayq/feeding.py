"""Standard input as it is sent: signed, since what a shell reads is what it runs.

Who can write to Redis, and hasn't the fleet's key, must not type into anybody's job.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from relayq.errors import BadSignature
from relayq.signing import Signer
from relayq.store.inputs import InputPiece

__all__ = ["InputPiece", "check_piece", "signed_piece"]


def signed_piece(signer: Signer, id: str, piece: InputPiece) -> InputPiece:
    """Return a piece of the input of this job, signed."""
    return replace(piece, signature=signer.sign_note(_name(id), _said(piece)))


def check_piece(signer: Signer, id: str, piece: InputPiece) -> None:
    """Raise `BadSignature` unless the piece was signed for this job and this place of its input."""
    if signer.check_note(piece.signature, name=_name(id)) != _said(piece):
        raise BadSignature("it was signed for another piece of the input")


def _name(id: str) -> str:
    return f"input {id}"


def _said(piece: InputPiece) -> bytes:
    digest = hashlib.sha256(piece.data).hexdigest()
    return f"{piece.position} {int(piece.is_end)} {piece.size} {digest}".encode()
