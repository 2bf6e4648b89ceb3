"""Real git repositories for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(directory: Path | str, *words: str) -> str:
    """Run git as Ann, and return what it prints."""
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    argv = ["git", "-C", str(directory), *identity, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n")


def make_repository(top: Path) -> Path:
    """Make one with two commits: `a`, and `below/b`; the first one is tagged v1."""
    (top / "below").mkdir(parents=True)
    git(top, "init", "--quiet", "-b", "main")
    (top / "a").write_text("one\ntwo\nthree\n")
    git(top, "add", "a")
    git(top, "commit", "--quiet", "-m", "first")
    git(top, "tag", "v1")
    (top / "below" / "b").write_text("b\n")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "second")
    return top
