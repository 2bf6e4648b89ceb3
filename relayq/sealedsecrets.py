"""Secrets that travel with a job, sealed so that only one host can open them.

A host's key is of X25519. Who seals makes a key for this one text, agrees with the host's public
key on a third one (HKDF-SHA256), and encrypts with that (ChaCha20-Poly1305), bound to the
variable's name. Needs the extra `signing`, on the host and where the secret is sealed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from relayq.errors import BadSignature, ConfigError, RelayqError
from relayq.identity import INSTALL, write_private
from relayq.model.secrets import sealed_for

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

FILE = "sealing.key"
_LENGTH = 32
_INFO = b"relayq sealed secret 1"
_MARK = "rqx1"
#: Its key is used once.
_NONCE = bytes(12)


def can_seal() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("cryptography") is not None


def mark_of(public: bytes) -> str:
    """Return the short name of a host's public key."""
    return hashlib.sha256(b"relayq sealing key\0" + public).hexdigest()[:16]


def note_name(host: str) -> str:
    """Return under which name a host's public key is signed by the fleet's."""
    return f"sealing key of {host}"


def seal_secret(public: bytes, name: str, value: str) -> str:
    """Return the value of a variable sealed for the host with this public key."""
    if not can_seal():
        raise RelayqError(
            "sealing needs the package cryptography, here and on the host", hint=INSTALL
        )
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    own = X25519PrivateKey.generate()
    shared = own.exchange(X25519PublicKey.from_public_bytes(public))
    ours = own.public_key().public_bytes_raw()
    body = ours + _cipher(shared, ours, public).encrypt(_NONCE, value.encode(), name.encode())
    return f"{_MARK}.{mark_of(public)}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}"


def _cipher(shared: bytes, ours: bytes, public: bytes) -> ChaCha20Poly1305:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), _LENGTH, salt=ours + public, info=_INFO).derive(shared)
    return ChaCha20Poly1305(key)


class Locker:
    """This host's key, made at first use."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE

    def public(self) -> bytes | None:
        """Return the public key; None where the extra isn't installed."""
        if not can_seal():
            return None
        try:
            return self._halves()[1]
        except FileNotFoundError:
            pass
        # Loaded only now: it takes 16 MB, and a worker asks for its public key every 30 s.
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        seed = os.urandom(_LENGTH)
        public = X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        halves = (base64.b64encode(half).decode() for half in (seed, public))
        write_private(self._path, " ".join(halves) + "\n")
        return public

    def unseal(self, name: str, sealed: str) -> str:
        """Return the value; BadSignature for what was sealed for another key or variable."""
        if not can_seal():
            raise BadSignature("the package cryptography isn't here")
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.asymmetric.x25519 import (
            X25519PrivateKey,
            X25519PublicKey,
        )

        try:
            seed, public = self._halves()
        except FileNotFoundError:
            raise BadSignature("this host has no key for that") from None
        key = X25519PrivateKey.from_private_bytes(seed)
        if sealed_for(sealed) != mark_of(public):
            raise BadSignature("it was sealed for another key")
        encoded = sealed.rpartition(".")[2]
        try:
            body = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            ours, text = body[:_LENGTH], body[_LENGTH:]
            shared = key.exchange(X25519PublicKey.from_public_bytes(ours))
            value = _cipher(shared, ours, public).decrypt(_NONCE, text, name.encode())
            return value.decode()
        except (InvalidTag, ValueError) as error:
            raise BadSignature(f"it wasn't sealed for {name}, or was changed") from error

    def _halves(self) -> tuple[bytes, bytes]:
        """Return the private key and the public one."""
        try:
            text = self._path.read_text("ascii", errors="replace")
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ConfigError(f"can't read {self._path}: {error.strerror or error}") from error
        if mode & 0o077:
            raise ConfigError(f"others can read {self._path}", hint=f"chmod 600 {self._path}")
        try:
            seed, public = (base64.b64decode(half, validate=True) for half in text.split())
        except ValueError:
            seed = public = b""
        if (len(seed), len(public)) != (_LENGTH, _LENGTH):
            raise ConfigError(f"{self._path} isn't a key", hint=f"rm {self._path}")
        return seed, public
