"""The ballast: a file that only takes up room, to be given up when the disk is full.

Under `appendfsync always` Redis ends when it can't write, and ends again after each start until
there is room. The ballast is that room: without it the broker, and so every job's end, would wait
for a person.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from relayq.errors import RelayqError

SIZE = 64 << 20
#: With less, the ballast is given up.
_LITTLE = 16 << 20
#: With less, Redis would end at its first write.
_NOTHING = 1 << 20
#: The ballast comes back when so many times its size are free.
_PLENTY = 4


def make_room(folder: Path) -> bool:
    """Give up the ballast if the disk is nearly full; return whether it was."""
    path = folder / "ballast"
    if free(folder) >= _LITTLE or not path.exists():
        return False
    path.unlink(missing_ok=True)
    return True


def check_room(folder: Path) -> None:
    """Raise if Redis would end at its first write."""
    if free(folder) < _NOTHING:
        raise RelayqError(
            f"the disk of {folder} is full, and the broker couldn't write",
            hint=f"free some space: du -xh '{folder.parent}' | sort -h | tail",
        )


def restore(folder: Path, size: int) -> None:
    """Make the ballast as large as it should be, if there is room in plenty."""
    path = folder / "ballast"
    has = path.stat().st_size if path.exists() else 0
    if has == size or (size > has and free(folder) < _PLENTY * size):
        return
    path.unlink(missing_ok=True)
    if size:
        _allocate(path, size)


def free(folder: Path) -> int:
    """Return how many bytes are free for this user."""
    return shutil.disk_usage(folder).free


def _allocate(path: Path, size: int) -> None:
    """Make a file that really has its size on the disk."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS
                for _ in range(size >> 20):
                    file.write(b"\0" * (1 << 20))
    except OSError:
        # Some file systems can't (ZFS), a full disk may: then there is none, and doctor says so.
        path.unlink(missing_ok=True)
