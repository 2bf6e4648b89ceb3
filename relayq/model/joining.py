"""How a machine asks to join a fleet: the token that a person carries over, what is asked by it.

A token has the addresses of the broker's machine, the number of a ticket that lies there, and a
secret. The secret itself never travels: what is asked is proved with a key that follows from it,
and what is answered is sealed with another one.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from relayq.errors import ConfigError
from relayq.parsing import is_host_name, web_url

#: What every token begins with: what it is, and the form of the rest.
PREFIX = "rq1."
#: Where the service takes what is asked.
PATH = "/api/v1/join"
#: What the answer is sealed for.
PURPOSE = b"join answer"
#: How much anybody may send, and how much is read of an answer.
LARGEST = 8192
_SECRET = 32
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Token:
    """One line that lets one machine join."""

    urls: tuple[str, ...]
    ticket: str
    secret: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The line."""
        said = {"u": list(self.urls), "i": self.ticket, "s": _encoded(self.secret)}
        return PREFIX + _encoded(json.dumps(said, separators=(",", ":")).encode())


def new_token(urls: tuple[str, ...]) -> Token:
    """Return a token that nobody has had before."""
    return Token(urls, os.urandom(8).hex(), os.urandom(_SECRET))


def read_token(text: str) -> Token:
    """Return the token of a line that somebody pasted; terminals and mails break long lines."""
    line = "".join(text.split())
    if not line.startswith(PREFIX):
        raise ConfigError(f"that is no join token: one begins with {PREFIX}", hint=_MAKE_ONE)
    try:
        said = json.loads(_decoded(line.removeprefix(PREFIX)))
        token = Token(tuple(said["u"]), said["i"], _decoded(said["s"]))
        is_whole = len(line) <= _LONGEST and is_id(token.ticket) and len(token.secret) == _SECRET
        urls = [web_url(url) for url in token.urls]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_whole, urls = False, []
    if not is_whole or not urls:
        raise ConfigError("the join token was cut or changed: copy the whole line", hint=_MAKE_ONE)
    return token


_MAKE_ONE = "on the broker's machine: relayq broker token"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a machine asks with a token.

    `nonce` is drawn once for an attempt to join, however often it is sent; `public` is the
    machine's half of the key agreement. `is_named` says that a person chose the name.
    """

    ticket: str
    nonce: str
    name: str
    install: str
    public: str
    is_named: bool = False
    as_client: bool = False

    def signed(self, key: bytes) -> dict[str, Any]:
        """Return what is sent."""
        return {**asdict(self), "proof": self.proof(key)}

    def proof(self, key: bytes) -> str:
        """Return what only who has the token can say of exactly this."""
        import hmac

        return hmac.digest(key, b"relayq join wish\0" + self.digested, "sha256").hex()

    @property
    def digested(self) -> bytes:
        """The same bytes for the same wish."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def read_wish(said: Any) -> tuple[Wish, str]:
    """Return what a stranger sent, and its proof; ValueError unless it has the right form."""
    if not isinstance(said, dict):
        raise ValueError("expected an object")
    proof = said.get("proof")
    try:
        wish = Wish(**{name: value for name, value in said.items() if name != "proof"})
    except TypeError as error:
        raise ValueError("unknown or missing fields") from error
    texts = (wish.ticket, wish.nonce, wish.name, wish.install, wish.public, proof)
    if not all(isinstance(text, str) and text.isascii() for text in texts):
        raise ValueError("expected texts")
    if not isinstance(wish.is_named, bool) or not isinstance(wish.as_client, bool):
        raise ValueError("expected true or false")
    if not is_id(wish.ticket) or not is_id(wish.nonce, 32) or not is_id(wish.install, 32):
        raise ValueError("ticket, nonce and install are hexadecimal numbers")
    if not is_host_name(wish.name):
        raise ValueError(f"{wish.name[:80]!r} can't be a host's name")
    return wish, str(proof)


def is_id(text: object, length: int = 16) -> bool:
    """Tell whether it is a hexadecimal number of that many letters, and so no path either."""
    return isinstance(text, str) and len(text) == length and set(text) <= set("0123456789abcdef")


def keys_of(secret: bytes) -> tuple[bytes, bytes]:
    """Return the keys that a token's secret stands for: of proofs, and of answers."""
    import hmac

    return (
        hmac.digest(secret, b"relayq join proof", "sha256"),
        hmac.digest(secret, b"relayq join answer", "sha256"),
    )


def answer_key(key: bytes, wish: Wish, public: str, agreed: bytes) -> bytes:
    """Return the key of one answer: of the token, of all that was said, and of what was agreed.

    What was agreed is forgotten by both sides. So who recorded everything and finds the token
    later, in a terminal's scroll-back, still can't read the answer.
    """
    import hmac

    said = b"\0".join((wish.digested, public.encode(), agreed))
    return hmac.digest(key, b"relayq join key\0" + said, "sha256")


@dataclass(frozen=True, slots=True)
class Admission:
    """What a machine is given.

    `broker` has the fields of the configuration's section, and `ca`, the text of a certificate;
    without a `host` it is where the machine asked. `is_own` says that its user can be revoked.
    """

    fleet: str
    role: str
    host: str
    key: str = field(repr=False)
    broker: Mapping[str, Any] = field(repr=False)
    is_own: bool
    version: str

    def as_text(self) -> bytes:
        """Return it as it is sealed."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of_text(cls, text: bytes) -> Admission:
        """Return what was sealed; fields of a newer version are left out."""
        said = json.loads(text)
        known = {name: value for name, value in said.items() if name in cls.__slots__}
        return cls(**known)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    padded = text + "=" * (-len(text) % 4)
    # The ordinary decoder passes over what isn't of its alphabet.
    return base64.b64decode(padded, altchars=b"-_", validate=True)
