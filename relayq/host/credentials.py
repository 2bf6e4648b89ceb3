"""What an agent gets of its host: an allow-list of variables, and the keys that it may have.

Keys are in `agents.env` beside the configuration, lines of NAME=value that nobody else can read.
They go to the one program that asked for them, by its environment, and are masked wherever its
output is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from relayq.errors import ConfigError

#: What an agent's shell inherits as well, so nothing that is secret.
_PASSED_ON = frozenset("PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR".split())
_JOBS_OWN = (
    *("RELAYQ_JOB_ID", "RELAYQ_ATTEMPT", "RELAYQ_DESK", "RELAYQ_CHECKPOINT"),
    *("RELAYQ_SOCKET", "RELAYQ_TOKEN", "RELAYQ_OUTPUT", "GITHUB_OUTPUT"),
)
#: Whoever starts relayq from inside an agent must not have the next one take itself for nested.
_NEVER = ("CLAUDECODE", "CLAUDE_CODE_")
#: A shorter one would mask ordinary words.
_SHORTEST_SECRET = 8
HIDDEN = "***"


def read_keys(path: str, account: str = "default") -> dict[str, str]:
    """Return the keys for an account; a file that others can read is a ConfigError.

    `NAME@work=value` is for the account `work` alone.
    """
    stated = list(entries(path, private_text(path, "the agents' keys")))
    common = {name: value for name, whose, value in stated if not whose}
    return {**common, **{name: value for name, whose, value in stated if whose == account}}


def private_text(path: str, what: str) -> str:
    """Return a file's text, "" if there is none; one that others can read is a ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        # Not the error itself, which quotes what it can't read.
        raise ConfigError(f"can't read {what}: it isn't UTF-8", place=path) from error
    except OSError as error:
        raise ConfigError(f"can't read {what}: {error.strerror or error}", place=path) from error
    if mode & 0o077:
        raise ConfigError(f"others can read {what}", place=path, hint=f"chmod 600 {path}")
    return text


def entries(path: str, text: str) -> Iterable[tuple[str, str, str]]:
    """Yield the name, the account ("" for all) and the value of each line that states one."""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, is_given, value = line.partition("=")
        name, _, whose = name.strip().partition("@")
        if not is_given or not name.isidentifier():
            # Not the line itself: it may be a key.
            raise ConfigError("expected NAME=value", place=f"{path}:{number}")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        yield name, whose, value


def environment(
    own: Mapping[str, str],
    *,
    keys: Mapping[str, str],
    passed: Iterable[str],
    added: Mapping[str, str],
) -> dict[str, str]:
    """Return an agent's environment: what may be known, its keys, and what it is `added`."""
    kept = {
        name: value
        for name, value in own.items()
        if name in _PASSED_ON or name in _JOBS_OWN or name.startswith("LC_")
    }
    kept.setdefault("PATH", os.defpath)
    wanted = {name: keys[name] for name in passed if name in keys}
    scrubbed = {n: v for n, v in {**kept, **wanted}.items() if n in wanted or not _is_scrubbed(n)}
    return {**scrubbed, "TERM": "dumb", **added}


def _is_scrubbed(name: str) -> bool:
    return name.startswith(_NEVER)


class Mask:
    """Replaces keys, and texts that are `hidden`, wherever they would be written down."""

    def __init__(self, keys: Mapping[str, str], hidden: Iterable[str] = ()) -> None:
        secrets = {
            value: f"[{name}]"
            for name, value in keys.items()
            if len(value) >= _SHORTEST_SECRET and "\n" not in value
        }
        secrets |= dict.fromkeys(hidden, HIDDEN)
        # The longest first: one may be part of another.
        self._secrets = sorted(secrets.items(), key=lambda one: -len(one[0]))

    def text(self, text: str) -> str:
        """Return the text with the names of the keys instead of their values."""
        for value, shown in self._secrets:
            text = text.replace(value, shown)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value with all its texts masked."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(str(key)): self.value(one) for key, one in value.items()}
            case list() | tuple():
                return [self.value(one) for one in value]
        return value

    def line(self, raw: bytes) -> bytes:
        """Return the line likewise."""
        for value, shown in self._secrets:
            raw = raw.replace(value.encode(), shown.encode())
        return raw
