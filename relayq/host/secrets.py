"""The secrets of this host: a file that nobody else can read, lines of NAME=value.

Standard library only: the shim imports this module.
"""

from __future__ import annotations

import fcntl
import os

from relayq.errors import ConfigError, RelayqError
from relayq.host import credentials
from relayq.model.secrets import check_secret

FILE = "secrets.env"
#: A shorter one can't be masked: ordinary words would be as well.
SHORTEST = 6
LONGEST = 16_384


def read(path: str) -> dict[str, str]:
    """Return the secrets by name; a file that others can read, or a wrong line, is a ConfigError.

    No error has a value in it.
    """
    text = credentials.private_text(path, "the secrets")
    found = {}
    for name, whose, value in credentials.entries(path, text):
        try:
            if whose:
                raise RelayqError(f"a secret is of no account: {name}@...")
            found[check_secret(name)] = check_value(name, value)
        except RelayqError as error:
            raise ConfigError(error.message, place=path, hint=error.hint) from error
    return found


def check_value(name: str, value: str) -> str:
    """Return a secret's value, or raise why it can't be one, without it."""
    if len(value) < SHORTEST:
        raise RelayqError(
            f"{name} has {len(value)} characters, too few to be masked in what jobs print: "
            f"a secret has {SHORTEST} at least"
        )
    if len(value.encode("utf-8", "replace")) > LONGEST:
        raise RelayqError(f"{name} is longer than {LONGEST} bytes", hint="a path to a file instead")
    if value.splitlines() != [value] or "\0" in value:
        raise RelayqError(
            f"{name} has several lines, and a secret is one",
            hint=f"base64 -w0 FILE | relayq secret set {name}; in the job: base64 -d",
        )
    return value


def keep(path: str, name: str, value: str) -> None:
    """Put a secret into the file, in place of the one of that name."""
    _change(path, check_secret(name), f'{name}="{check_value(name, value)}"')


def remove(path: str, name: str) -> bool:
    """Take a secret out of the file; False if it isn't there."""
    if name not in read(path):
        return False
    _change(path, name, None)
    return True


def _change(path: str, name: str, line: str | None) -> None:
    """Replace the lines of a name; the others stay as they are, remarks included."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Two that change it at once must both be in it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = []
        for one in credentials.private_text(path, "the secrets").splitlines():
            stated = one.strip().removeprefix("export ").partition("=")[0].strip()
            if stated != name:
                kept.append(one)
        _write(path, "".join(f"{one}\n" for one in [*kept, *([line] if line else [])]))
    finally:
        os.close(lock)


def _write(path: str, text: str) -> None:
    draft = f"{path}.{os.getpid()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    except BaseException:
        if os.path.exists(draft):
            os.unlink(draft)
        raise
