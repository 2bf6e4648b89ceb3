"""Jobs' tokens, and where the worker listens to those who have one."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from pathlib import Path

from relayq.passage import TOKEN
from relayq.privileges import is_lowered

#: A socket's path has 104 bytes on macOS, 108 on Linux, its end included.
_LONGEST = 100


def address(home: Path) -> str:
    """Return where the worker of this home listens; the same for each of its processes."""
    # Root's home isn't a place where a job's user could put it.
    path = str((home / "spool" if is_lowered() else home) / "worker.sock")
    if len(os.fsencode(path)) <= _LONGEST:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"relayq-{os.getuid()}", f"{name}.sock")


def fresh() -> str:
    """Return a token that nobody had before."""
    return secrets.token_hex(16)


def read(directory: Path) -> str:
    """Return the token that an attempt's command has, "" if there is none."""
    try:
        command = json.loads((directory / "command.json").read_bytes())
        return str(command["env"].get(TOKEN, ""))
    except (OSError, ValueError, KeyError):
        return ""
