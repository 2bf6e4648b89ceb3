"""A real codebase of more than 500 files, to be analysed: `python -m tests.agents.codebase`.

It is a source archive of the package index, pinned, unpacked into the cache that the agents'
programs are in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.agents.install import is_open, place

PACKAGE, VERSION = "django", "4.2.16"
HINT = "python -m tests.agents.codebase"


def root() -> Path:
    """Return the directory of the codebase, whether it is there or not."""
    return place().with_name(f"{PACKAGE}-{VERSION}")


def is_there() -> bool:
    """Tell whether it has been fetched."""
    return root().is_dir()


def fetch() -> None:
    """Fetch it; it appears when all of it is there."""
    if is_there():
        return
    draft = root().with_name(f".{PACKAGE}-{VERSION}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run([*pip, f"{PACKAGE}=={VERSION}", "--dest", draft], check=False)
    if done.returncode != 0:
        raise SystemExit(f"pip can't fetch {PACKAGE}: exit {done.returncode}")
    [archive] = draft.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(draft / "unpacked", filter="data")
    [directory] = (draft / "unpacked").iterdir()
    for one in directory.rglob("*"):
        # Who runs the agents in the tests isn't who fetched it.
        one.chmod(0o755 if is_open(one) else 0o644)
    directory.chmod(0o755)
    directory.rename(root())
    shutil.rmtree(draft)


if __name__ == "__main__":
    fetch()
    print(root())
