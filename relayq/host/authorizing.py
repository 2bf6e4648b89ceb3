"""This host's `authorized_submitters`, as a person changes it; what it means is in admission.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relayq.errors import ConfigError, RelayqError
from relayq.host.admission import FILE
from relayq.identity import check_installed, write_private
from relayq.model.submitters import Submitter, read_submitters
from relayq.rotation import check_trusted


def read(home: Path) -> Sequence[Submitter] | None:
    """Return who is authorised here, None without such a file: then the fleet's key is enough."""
    path = home / FILE
    try:
        text = path.read_text("utf-8")
        check_trusted(path)
    except (OSError, UnicodeDecodeError) as error:
        # A link may lead to a disk that isn't there.
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return None
        raise ConfigError(f"can't read {path}: {error}") from error
    return _read(home, text)


def add(home: Path, submitter: Submitter) -> Submitter | None:
    """Authorise a key, with these limits and no others; returns its line before, if it had one.

    The first one makes the host refuse everybody else.
    """
    check_installed()
    before = next((one for one in read(home) or () if one.public == submitter.public), None)
    text = _text(home)
    text = _without(text, before) if before else text
    if text and not text.endswith("\n"):
        text += "\n"
    text += submitter.line + "\n"
    _read(home, text)
    write_private(home / FILE, text)
    return before


def remove(home: Path, name: str) -> Submitter:
    """Authorise a key no longer, by its owner's name or its id; the file stays, even if empty."""
    known = read(home) or ()
    found = [one for one in known if name in (one.name, one.id)]
    if not found:
        names = ", ".join(one.name for one in known) or "nobody"
        raise RelayqError(f"{name} isn't in {home / FILE}, which has {names}", hint="relayq key ls")
    write_private(home / FILE, _without(_text(home), found[0]))
    return found[0]


def _text(home: Path) -> str:
    try:
        return (home / FILE).read_text("utf-8")
    except FileNotFoundError:
        return ""


def _without(text: str, submitter: Submitter) -> str:
    """Return the text without one line; comments stay as they are."""
    kept = []
    for line in text.splitlines(keepends=True):
        if submitter not in read_submitters(line):
            kept.append(line)
    return "".join(kept)


def _read(home: Path, text: str) -> Sequence[Submitter]:
    try:
        return read_submitters(text)
    except RelayqError as error:
        raise ConfigError(f"{home / FILE}: {error.message}", hint=error.hint) from error
