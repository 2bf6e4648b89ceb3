"""Secrets, by their names alone: which a job may ask for, and how a host says that it has one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from relayq.errors import RelayqError

#: Capital letters only: so a capability, which has small ones, names one secret and no other.
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,54}")
_PREFIX = "secret:"
_KEY_PREFIX = "opens:"
#: What is sealed for a worker's key: the mark of that key, and the rest in base64 for URLs.
_SEALED = re.compile(r"rqx1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{64,32768})")
#: Variables by which a job finds its way; no secret may stand in for one.
_TAKEN = frozenset("PATH HOME USER LOGNAME SHELL LANG TZ TMPDIR IFS ENV BASH_ENV".split())
_TAKEN_PREFIXES = ("RELAYQ_", "LD_", "DYLD_")


def check_secret(name: str) -> str:
    """Return the name of a secret, or raise what is wrong with it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        hint = "relayq secret ls"
        if isinstance(name, str) and _NAME.fullmatch(name.upper()):
            hint = f"{name.upper()}, perhaps; {hint}"
        raise RelayqError(
            f"the name of a secret has capital letters, digits and _: {name!r:.80}", hint=hint
        )
    if name in _TAKEN or name.startswith(_TAKEN_PREFIXES):
        raise RelayqError(f"a secret can't be called {name}: a job has that variable already")
    return name


def check_secrets(names: Iterable[str] | str) -> tuple[str, ...]:
    """Return names of secrets, each once, with commas or alone; `NAME=rqx1...` is a sealed one."""
    texts = [names] if isinstance(names, str) else names
    words = {word.strip() for text in texts for word in str(text).split(",")}
    found = tuple(sorted(map(_check_word, words)))
    own = [name_of(word) for word in found]
    if twice := sorted({name for name in own if own.count(name) > 1}):
        raise RelayqError(f"{twice[0]} is asked for twice, in different ways")
    return found


def _check_word(word: str) -> str:
    name, is_given, sealed = word.partition("=")
    check_secret(name)
    if is_given and not _SEALED.fullmatch(sealed):
        # Not the text itself: it may be what should have been sealed.
        raise RelayqError(
            f"what is given for {name} isn't a sealed secret, and is seen by everybody now",
            hint=f"relayq secret seal {name} --on HOST",
        )
    return word


def name_of(secret: str) -> str:
    """Return the variable that a job's secret is, sealed or not."""
    return secret.partition("=")[0]


def said_of(secret: str) -> str:
    """Return what people are told of a job's secret."""
    return name_of(secret) if sealed_of(secret) is None else f"{name_of(secret)} (sealed)"


def sealed_of(secret: str) -> str | None:
    """Return the sealed text of a job's secret, None for one that its host has."""
    return secret.partition("=")[2] or None


def sealed_for(sealed: str) -> str:
    """Return the mark of the key that opens a sealed text."""
    match = _SEALED.fullmatch(sealed)
    return match[1] if match else ""


def need_of(secret: str) -> str:
    """Return the capability of a host that has a secret, or the key for a sealed one."""
    sealed = sealed_of(secret)
    return f"{_PREFIX}{name_of(secret).lower()}" if sealed is None else key_of(sealed_for(sealed))


def key_of(mark: str) -> str:
    """Return the capability of a host that has a key to open sealed secrets with."""
    return f"{_KEY_PREFIX}{mark}"


def is_key(capability: str) -> bool:
    """Whether the capability is to open what was sealed for one key."""
    return capability.startswith(_KEY_PREFIX)


def secret_in(capability: str) -> str | None:
    """Return the name of the secret that a capability is, None for another one."""
    return capability.removeprefix(_PREFIX).upper() if capability.startswith(_PREFIX) else None
