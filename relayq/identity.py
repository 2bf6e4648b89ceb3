"""A submitter's own key: Ed25519, so that a host can tell who asks and not only which fleet.

The private half never leaves its machine. `cryptography` does the arithmetic; it is imported only
where a signature is made or checked.
"""

from __future__ import annotations

import base64
import binascii
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from relayq.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: The file below the home that has it.
FILE = "submitter.key"
INSTALL = "pip install 'relayq[signing]'"
_TYPE = "ed25519-private"
_SEED = 32


class Identity:
    """A private key and the name that its owner gave it."""

    def __init__(self, seed: bytes, name: str) -> None:
        self._seed = seed
        self.name = name

    @cached_property
    def public(self) -> bytes:
        """The half that others may know."""
        return self._private.public_key().public_bytes_raw()

    @cached_property
    def id(self) -> str:
        """The short name of the key."""
        from relayq.model.submitters import submitter_id

        return submitter_id(self.public)

    @property
    def line(self) -> str:
        """What a host that is to authorise it is given."""
        from relayq.model.submitters import public_line

        return public_line(self.public, self.name)

    def sign(self, text: bytes) -> bytes:
        """Return the signature of a text: 64 bytes, always the same."""
        return self._private.sign(text)

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        check_installed()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._seed)


def check_installed() -> None:
    """Raise ConfigError, with the command that helps, where nothing can be signed or checked."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "keys of submitters (Ed25519) need the package cryptography, which isn't here",
            hint=INSTALL,
        ) from error


def is_signed_by(public: bytes, signature: bytes, text: bytes) -> bool:
    """Whether the owner of this public key signed this text."""
    check_installed()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_identity(home: Path) -> Identity | None:
    """Return this machine's key, None if it has none."""
    path = home / FILE
    try:
        text = path.read_text("ascii", errors="replace")
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"can't read the submitter's key: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"others can read the submitter's key {path}", hint=f"chmod 600 '{path}'")
    match text.split():
        case [kind, encoded, name] if kind == _TYPE:
            try:
                seed = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                seed = b""
            if len(seed) == _SEED:
                return Identity(seed, name)
    raise ConfigError(f"{path} isn't a submitter's key", hint="relayq key new --force")


def make_identity(home: Path, name: str, *, replaces: bool = False) -> Identity:
    """Make this machine's key, readable by its owner only."""
    check_installed()
    identity = Identity(os.urandom(_SEED), name)
    path = home / FILE
    if path.exists() and not replaces:
        raise ConfigError(
            f"this machine has a key already: {path}",
            hint="relayq key show; relayq key new --force makes another one",
        )
    seed = base64.b64encode(identity._seed).decode()
    write_private(path, f"{_TYPE} {seed} {name}\n")
    return identity


def write_private(path: Path, text: str) -> None:
    """Have a file say this, for its owner only; who reads it sees the old text or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror or error}") from error
