"""Script files as commands: their text goes with the job, their `#RELAYQ` lines are options.

The host needs no copy of the file: a shell hands the text to the interpreter that the first line
names, as a file that it inherits. Nothing is left behind, and exit code and signals are the
interpreter's, which takes the shell's place.
"""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relayq.errors import RelayqError

#: Its arguments: the script's name ($0), its text, then the interpreter with its own argument.
_HAND_OVER = """\
text=$1; shift
exec 3<<RELAYQ
$text
RELAYQ
exec "$@" /dev/fd/3"""
_OPTIONS = "#RELAYQ"
#: Linux takes no single argument of 128 KiB or more.
_LONGEST = 128 * 1024 - 1


@dataclass(frozen=True, slots=True)
class Script:
    """A file that names its own interpreter."""

    file: str
    text: str

    @property
    def name(self) -> str:
        """What it is called."""
        return os.path.basename(self.file)

    @property
    def command(self) -> list[str]:
        """The program and arguments that run its text on any host."""
        # As the kernel reads the line: an interpreter, and at most one argument.
        interpreter = self.text.split("\n", 1)[0][2:].strip().split(None, 1)
        return ["/bin/sh", "-c", _HAND_OVER, self.name, self.text, *interpreter]

    def options(self) -> list[tuple[int, list[str]]]:
        """Return the options of each `#RELAYQ` line at its top, with the line's number."""
        found = []
        for number, line in enumerate(self.text.splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                break
            if line.split(None, 1)[:1] != [_OPTIONS]:
                continue
            try:
                found.append((number, shlex.split(line[len(_OPTIONS) :])))
            except ValueError as error:
                raise RelayqError(f"{self.file}:{number}: {error}") from error
        return found


def find(command: Sequence[str]) -> Script | None:
    """Return the script that the single argument names, None if it is anything else."""
    if len(command) != 1 or not os.path.isfile(command[0]):
        return None
    try:
        with Path(command[0]).open("rb") as file:
            raw = file.read(2)
            if raw != b"#!":
                return None
            raw += file.read(_LONGEST)
    except OSError as error:
        raise RelayqError(
            f"{command[0]} can't be read: {error.strerror}", hint=f"ls -l {command[0]}"
        ) from error
    if len(raw) > _LONGEST or b"\0" in raw:
        raise RelayqError(
            f"{command[0]} isn't a script of less than 128 KiB",
            hint=f"if the host has it: relayq run -s {shlex.quote(command[0])}",
        )
    try:
        script = Script(command[0], raw.decode())
    except UnicodeDecodeError as error:
        raise RelayqError(f"{command[0]} isn't UTF-8 text", hint=f"file {command[0]}") from error
    if len(script.command) == 5:
        raise RelayqError(f"{command[0]}:1: no interpreter follows #!", hint="#!/bin/sh")
    return script


def called(command: Sequence[object]) -> str | None:
    """Return the name of the script that a stored command runs, None if it runs none."""
    is_script = len(command) > 5 and list(command[:3]) == ["/bin/sh", "-c", _HAND_OVER]
    return str(command[3]) if is_script else None
