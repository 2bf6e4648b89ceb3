"""What the worker keeps of an attempt on its disk, above what the shim needs.

In the shim's `command.json` it adds the claim (the signed spec and the counts of failures and
losses before);
`delivered` says that the broker has the outcome: then the directory only waits for somebody who
wants the whole output.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from relayq import clock
from relayq.model.jobs import Token
from relayq.model.output import HEADER, whole

_READ = 256 * 1024


def directory_name(token: Token) -> str:
    """Return the name of an attempt's directory."""
    return f"{token.id}.{token.attempt}.{token.uid}"


def is_frozen(directory: Path) -> bool:
    """Whether the attempt's shim was told to freeze it."""
    try:
        said = json.loads((directory / "control.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("op") == "freeze"


def token_of(directory: Path) -> Token | None:
    """Return the token that a directory's name holds, None for another directory."""
    id, _, rest = directory.name.partition(".")
    attempt, _, uid = rest.partition(".")
    return Token(id, int(attempt), uid) if id and uid and attempt.isdecimal() else None


@dataclass(frozen=True, slots=True)
class ClaimNote:
    """What must be known of a claim to finish its attempt after a restart."""

    signed: bytes
    failures: int
    losses: int
    account: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as `command.json` holds it."""
        counts = {"failures": self.failures, "losses": self.losses}
        return {"signed": self.signed.decode(), **counts, "account": self.account}

    @classmethod
    def read(cls, directory: Path) -> ClaimNote | None:
        """Return it, None when the attempt never was prepared."""
        try:
            note = json.loads((directory / "command.json").read_text())["claim"]
            counts = int(note["failures"]), int(note.get("losses", 0))
            return cls(note["signed"].encode(), *counts, str(note.get("account", "")))
        except (OSError, ValueError, KeyError):
            return None


def is_fed(directory: Path) -> bool:
    """Whether the attempt's standard input comes while it runs."""
    try:
        return bool(json.loads((directory / "command.json").read_text()).get("feed"))
    except (OSError, ValueError):
        return False


def mark_delivered(directory: Path, *, keep: bool) -> None:
    """Note that the broker has the outcome; keep the output only if somebody may still want it."""
    if keep:
        (directory / "delivered").touch()
    else:
        remove(directory)


def remove(directory: Path) -> None:
    """Remove an attempt's directory with all in it; shutil.rmtree takes twice the time.

    What can't be removed now is a later prune's or the next worker's: it has been delivered.
    """
    with suppress(OSError):
        for entry in os.scandir(directory):
            if entry.is_dir(follow_symlinks=False):
                if not os.access(entry.path, os.R_OK | os.W_OK | os.X_OK):
                    os.chmod(entry.path, 0o700)  # a job's own, such as Go's cache of modules
                remove(Path(entry.path))
            else:
                os.unlink(entry.path)
        os.rmdir(directory)


def is_delivered(directory: Path) -> bool:
    """Whether the broker has the attempt's outcome."""
    return (directory / "delivered").exists()


def find(spool: Path, id: str, attempt: int | None = None) -> Path | None:
    """Return the directory of a job's attempt, or of its last one that is here."""
    found = [
        (token.attempt, path)
        for path in spool.glob(f"{escape(id.replace(os.sep, ''))}.*")
        if (token := token_of(path)) is not None and attempt in (None, token.attempt)
    ]
    return max(found)[1] if found else None


def prune(spool: Path, *, older_than: float) -> int:
    """Remove delivered attempts whose end is that many seconds ago; returns how many."""
    removed = 0
    for marker in spool.glob("*/delivered"):
        if clock.now() - marker.stat().st_mtime > older_than:
            remove(marker.parent)
            removed += 1
    return removed


def output_size(directory: Path) -> int:
    """Return the size of the output so far."""
    try:
        return (directory / "output").stat().st_size
    except FileNotFoundError:
        return 0


def read_output(directory: Path, position: int, end: int | None = None) -> bytes:
    """Return whole frames of the output from `position` on, about a quarter MiB.

    With `end`, those that begin before it: so a frame larger than the room for it isn't lost.
    """
    if end is not None and position >= end:
        return b""
    path = os.path.join(directory, "output")
    try:
        # Thirty times a second for a job that is followed, and mostly there is nothing new.
        if os.stat(path).st_size <= position:
            return b""
        with open(path, "rb") as file:
            file.seek(position)
            raw = file.read(_READ)
    except FileNotFoundError:
        return b""
    return raw[: whole(raw, None if end is None else end - position)]


def tail_position(directory: Path, position: int, room: int) -> int:
    """Return the first frame boundary from `position` on with at most `room` bytes after it.

    At least the last frame is kept, however large it is.
    """
    size = output_size(directory)
    last = position
    for start, frames in _blocks(directory, position):
        used = 0
        while used < len(frames):
            last = start + used
            if last >= size - room:
                return last
            used += _first_frame(frames, used)
    return last


def _blocks(directory: Path, position: int) -> Iterator[tuple[int, bytes]]:
    while frames := read_output(directory, position):
        yield position, frames
        position += len(frames)


def _first_frame(frames: bytes, start: int) -> int:
    return int(HEADER.size + HEADER.unpack_from(frames, start)[2])
