"""Secrets, by their names alone: which a job may ask for, and how a host says that it has one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from relayq.errors import RelayqError

#: Capital letters only: so a capability, which has small ones, names one secret and no other.
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,54}")
_PREFIX = "secret:"
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
    """Return names of secrets, each once; a text may hold several, with commas."""
    texts = [names] if isinstance(names, str) else names
    words = [word.strip() for text in texts for word in str(text).split(",")]
    return tuple(sorted({check_secret(word) for word in words}))


def need_of(name: str) -> str:
    """Return the capability of a host that has a secret."""
    return f"{_PREFIX}{name.lower()}"


def secret_in(capability: str) -> str | None:
    """Return the name of the secret that a capability is, None for another one."""
    return capability.removeprefix(_PREFIX).upper() if capability.startswith(_PREFIX) else None
