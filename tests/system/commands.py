"""relayq as people start it: real processes, with or without a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from select import select

from tests.system import forking
from tests.waiting import until

ROOT = Path(__file__).parents[2]
SILENT = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def argv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "relayq", *arguments]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def relayq(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    options = {"text": True, "timeout": 60, "env": environ(), **SILENT, **options}
    return forking.run(arguments, **options)


def begin(*arguments: str, **options) -> subprocess.Popen[str]:
    """Start a command that a test interrupts or reads from."""
    return subprocess.Popen(argv(*arguments), text=True, env=environ(), **{**SILENT, **options})


def submit(*arguments: str) -> str:
    done = relayq("submit", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shown(id: str) -> dict:
    return json.loads(relayq("show", "--json", id).stdout)


def begun(id: str) -> None:
    until(lambda: shown(id)["phase"] == "started", within=10, what=f"{id} to start")


def until_exists(file: Path) -> str:
    return f"while [ ! -e {file} ]; do sleep 0.05; done"


class Terminal:
    """A command that has a terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 80, **environ_of: str) -> None:
        self._main, end = pty.openpty()
        env = {**environ(), "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24", **environ_of}
        self.process = subprocess.Popen(
            argv(*arguments),
            env=env,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            # Only a session's own terminal makes a signal of ^C.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(end)
        self.seen = ""

    def type(self, text: str) -> None:
        """Type at the terminal."""
        os.write(self._main, text.encode())

    def sees(self, text: str) -> None:
        """Read until the text is on the screen."""
        until(lambda: self._read() and text in self.seen, within=20, what=f"{text!r} on the screen")

    def _read(self) -> bool:
        with suppress(OSError):  # its end
            while select([self._main], [], [], 0)[0] and (piece := os.read(self._main, 65_536)):
                self.seen += piece.decode(errors="replace")
        return True

    def finish(self) -> int:
        """Wait for the end; returns the exit code."""
        until(lambda: self._read() and self.process.poll() is not None, within=30, what="the end")
        self._read()
        os.close(self._main)
        return self.process.returncode
