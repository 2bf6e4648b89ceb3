"""Runs git: nobody is asked, no hook runs, and no configuration changes what it says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import IO

from relayq.errors import NoRoom, RelayqError

_PLAIN = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false"),
    # What it starts in the background would outlive the step, and keep the job from its end.
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
    *("-c", "commit.gpgSign=false", "-c", "advice.detachedHead=false"),
)
_TOLD = 600
_FULL = "No space left on device"


class GitFailed(RelayqError):
    """What git was asked for it couldn't do; `said` is all of its own words."""

    def __init__(self, message: str, *, said: str = "") -> None:
        super().__init__(message)
        self.said = said


def git(
    directory: str,
    *words: str,
    to: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run git in a directory and return what it prints, or write that to a file.

    Raises GitFailed when it fails, NoRoom on a full disk.
    """
    code, printed, said = attempt(directory, *words, to=to, env=env)
    if code == 0:
        return printed
    if _FULL in said:
        raise NoRoom(f"git {words[0]}: {_first(said)}", hint=f"df -h {directory}")
    raise GitFailed(f"git {words[0]}: {_first(said) or f'exit code {code}'}", said=said)


def attempt(
    directory: str,
    *words: str,
    to: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run git and return its exit code, and what it prints on both of its streams."""
    # GIT_DIR and its like would lead it to another repository.
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    own |= {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *_PLAIN, *words],
            cwd=directory,
            env={**own, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if to is None else to,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError as error:
        missing = "git isn't installed here" if os.path.isdir(directory) else f"no {directory}"
        raise GitFailed(missing) from error
    printed = "" if done.stdout is None else _text(done.stdout)
    return done.returncode, printed, _text(done.stderr).strip()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _first(said: str) -> str:
    """Return git's own words without what it adds for people at a keyboard."""
    lines = [line for line in said.splitlines() if line and not line.startswith("hint:")]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    shown = "; ".join(line.removeprefix("fatal: ").removeprefix("error: ") for line in fatal)
    return (shown or "; ".join(lines))[:_TOLD].encode("utf-8", "replace").decode()


def lines(printed: str) -> list[str]:
    """Return the entries of what git printed."""
    return [one for one in printed.split("\0") if one]
