"""Runs a command of root's where another user may reach this interpreter and this package.

They lie below directories that are root's alone, on many a machine. In a mount namespace of its own
these are open: `python opened.py NEEDED:NEEDED... COMMAND...`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MARK = "RELAYQ_TEST_OPENED"
_PLACES = (Path("/mnt"), Path("/media"), Path("/srv"))


def argv(*command: str) -> list[str]:
    """Return what runs a command so, as root."""
    needed = dict.fromkeys(os.path.realpath(p) for p in (sys.base_prefix, sys.prefix, ROOT))
    return [str(Path(__file__)), os.pathsep.join(needed), *command]


def can_open() -> bool:
    """Whether this machine lets us make a mount namespace."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    try:
        done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def closed_above(path: Path) -> Path | None:
    """Return the highest directory above a path that others can't pass."""
    return next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def main() -> None:
    """Open what is needed, and become the command."""
    if _MARK not in os.environ:
        os.environ[_MARK] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *sys.orig_argv])
    needed = [Path(path) for path in sys.argv[1].split(os.pathsep)]
    # A directory that is there anyway: what is mounted on it is seen in this namespace alone.
    stash = next(p for p in _PLACES if p.is_dir() and not any(n.is_relative_to(p) for n in needed))
    mount("-t", "tmpfs", "tmpfs", str(stash))
    kept = {}
    for number, path in enumerate(needed):
        kept[path] = stash / str(number)
        kept[path].mkdir()
        mount("--bind", str(path), str(kept[path]))
    for path in needed:
        if (closed := closed_above(path)) is not None:
            mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(closed))
        path.mkdir(parents=True, exist_ok=True)
        mount("--bind", str(kept[path]), str(path))
    os.environ.pop(_MARK)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
