"""run_command: one shell line, or one program with its arguments."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field

from relayq.kinds import Command, Ended, HostFacts, Verdict, kind
from relayq.model.jobs import JobState, Reason


@dataclass(frozen=True, slots=True)
class CommandPayload:
    """`cmd` as text is a line for `sh -c`; as a list it is a program and its arguments, no shell.

    `cwd` is a directory on the host (`~` is the worker's home, which is also the default; that of a
    job with files is a fresh scratch directory). `env` is added to the environment, `stdin` is text
    for the standard input. With `feed`, standard input is what `JobResult.feed` sends; such a job
    has one attempt only. `tty` gives it a terminal, whose one stream is its standard output.
    """

    cmd: str | list[str]
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str | None = None
    feed: bool = False
    tty: bool = False

    def __post_init__(self) -> None:
        parts = [self.cmd] if isinstance(self.cmd, str) else self.cmd
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            raise TypeError("the command must be text or a list of texts")
        if not parts or not parts[0].strip():
            raise ValueError("the command is empty")
        if not isinstance(self.env, Mapping):
            raise TypeError("env must map names to values")
        texts = [*parts, *self.env, *self.env.values(), self.cwd or "", self.stdin or ""]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("directory, variables and standard input must be text")
        if any("\0" in text for text in texts[:-1]):
            raise ValueError("a command, directory or variable can't hold a NUL character")
        if (self.feed or self.tty) and self.stdin is not None:
            raise ValueError("standard input is either a text or fed")
        if any("=" in name or not name for name in self.env):
            raise ValueError("a variable's name can't be empty or hold '='")


@kind("run_command")
class RunCommand:
    """Run a command as a shell would."""

    Payload = CommandPayload

    def plan(self, payload: CommandPayload, host: HostFacts) -> Command:
        """Return the shell, or the program itself."""
        argv = (
            ("/bin/sh", "-c", payload.cmd) if isinstance(payload.cmd, str) else tuple(payload.cmd)
        )
        return Command(
            argv=argv,
            cwd=expand(payload.cwd, host.home, host.scratch),
            env=payload.env,
            stdin=None if payload.stdin is None else payload.stdin.encode(),
            feed=payload.feed or payload.tty,
            tty=payload.tty,
        )

    def interpret(self, ended: Ended) -> Verdict:
        """Return success for exit code 0, else failure; nothing else is judged."""
        if ended.exit_code == 0 and ended.reason == Reason.EXIT:
            return Verdict(JobState.SUCCEEDED, Reason.EXIT)
        return Verdict(JobState.FAILED, ended.reason, error=ended.error)


def expand(cwd: str | None, home: str, scratch: str = "") -> str:
    """Return a directory on the host: `~` and relative paths start at the worker's home.

    Without one it is the scratch directory, if there is one.
    """
    if cwd is None and scratch:
        return scratch
    if cwd is None or cwd == "~":
        return home
    return os.path.join(home, cwd[2:] if cwd.startswith("~/") else cwd)
