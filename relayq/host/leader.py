"""The job's first process: started by the shim as a clean child in a session of its own.

Standard library only: the shim imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import termios
import warnings  # noqa: F401  os.execvpe imports it: here once, not in each child
from typing import NamedTuple, NoReturn

from relayq.host import tree
from relayq.host.spool import Facts


class Program(NamedTuple):
    """A command as execve(2) takes it, made before the fork.

    After a fork each page that either side writes to is copied, 3 microseconds a page: what the
    child needn't do makes every job faster.
    """

    path: bytes | None
    argv: list[bytes]
    environment: dict[bytes, bytes]
    cwd: bytes
    stdin: bytes
    umask: int


class Leader(NamedTuple):
    """A started leader: its id, and the ends of its pipes that the shim reads."""

    pid: int
    stdout: int
    stderr: int | None  # None with a terminal, which has one stream
    failure: int
    stdin: int | None  # to write to, when the input comes while the job runs


class Failure(NamedTuple):
    """Why the command didn't run: at which stage, with which errno."""

    stage: str
    number: int


def start(command: Facts) -> Leader:
    """Fork the leader; what fails after that is in its `failure` pipe once it has ended."""
    program = _prepare(command)
    streams = _terminal() if command.get("tty") else _pipes(fed=bool(command.get("feed")))
    failure = os.pipe()
    shim = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        _close(*failure, *streams.theirs, *streams.ours)
        raise
    if pid == 0:
        _become(program, shim, streams.theirs, failure[1])
    _close(*streams.theirs, failure[1])
    stdin, stdout, stderr = streams.ours
    assert stdout is not None  # only the input may be missing
    return Leader(pid, stdout, stderr, failure[0], stdin)


def _close(*descriptors: int | None) -> None:
    for fd in set(descriptors):
        if fd is not None:
            os.close(fd)


class Streams(NamedTuple):
    """The standard streams, the job's ends and the shim's; a terminal is one for all."""

    theirs: tuple[int | None, int, int]
    ours: tuple[int | None, int | None, int | None]


def _pipes(*, fed: bool) -> Streams:
    stdin = os.pipe() if fed else (None, None)
    stdout, stderr = os.pipe(), os.pipe()
    return Streams((stdin[0], stdout[1], stderr[1]), (stdin[1], stdout[0], stderr[0]))


def _terminal() -> Streams:
    ours, theirs = os.openpty()
    resize(ours, 24, 80)
    return Streams((theirs, theirs, theirs), (os.dup(ours), ours, None))


def resize(terminal: int, rows: int, columns: int) -> None:
    """Tell the programs in a terminal how large it is."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_failure(leader: Leader) -> Failure | None:
    """Return why an ended leader never ran its command, None when it did."""
    stage, _, number = os.read(leader.failure, 64).decode().partition(" ")
    return Failure(stage, int(number)) if stage else None


def explain(failure: Failure, command: Facts) -> str:
    """Return the failure as an error that names what was missing."""
    named = command["cwd"] if failure.stage == "cwd" else command["stdin"]
    what = {
        ("cwd", errno.ENOENT): "no such directory",
        ("stdin", errno.ENOENT): "no such file",
    }.get((failure.stage, failure.number), os.strerror(failure.number).lower())
    return f"{what}: {named}"


def explain_as_shell(failure: Failure, command: Facts) -> tuple[int, str]:
    """Return the exit code and the line that a shell has for a command that can't be executed."""
    name = command["argv"][0]
    if failure.number in (errno.ENOENT, errno.ENOTDIR):
        what = "no such file or directory" if "/" in name else "command not found"
        return 127, f"relayq: {name}: {what}\n"
    return 126, f"relayq: {name}: {os.strerror(failure.number).lower()}\n"


def _prepare(command: Facts) -> Program:
    argv = [_raw(word) for word in command["argv"]]
    environment = {_raw(name): _raw(value) for name, value in command["env"].items()}
    cwd = _raw(command["cwd"])
    path = argv[0] if b"/" in argv[0] else _find(argv[0], cwd, environment)
    stdin = _raw(command["stdin"] or os.devnull)
    return Program(path, argv, environment, cwd, stdin, command["umask"])


def _find(name: bytes, cwd: bytes, environment: dict[bytes, bytes]) -> bytes | None:
    """Return the program that PATH names, None when that takes execvpe's closer look."""
    for entry in environment.get(b"PATH", b"").split(b":"):
        path = os.path.join(cwd, entry, name)
        if entry and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _become(
    program: Program, shim: int, streams: tuple[int | None, int, int], failure: int
) -> NoReturn:
    """Turn the forked child into the command; never return."""
    stage = "stdin"
    try:
        # What the shim ignores it handles, and execve gives handled signals their defaults; this
        # one is for a cancel that comes before.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        tree.die_with_parent()
        if tree.IS_LINUX and os.getppid() != shim:
            os._exit(1)  # the shim died before it could be asked to take this process along
        stdin, stdout, stderr = streams
        if stdin == stdout:
            fcntl.ioctl(stdout, termios.TIOCSCTTY, 0)
        os.dup2(os.open(program.stdin, os.O_RDONLY | os.O_CLOEXEC) if stdin is None else stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.umask(program.umask)
        stage = "cwd"
        os.chdir(program.cwd)
        stage = "exec"
        if program.path is not None:
            os.execve(program.path, program.argv, program.environment)
        os.execvpe(program.argv[0], program.argv, program.environment)
    except OSError as error:
        os.write(failure, f"{stage} {error.errno}".encode())
    except BaseException:  # a NUL byte in a word, say: never go on as a second shim
        os.write(failure, f"{stage} {errno.EINVAL}".encode())
    os._exit(127)


def _raw(text: str) -> bytes:
    """Return the bytes that the text stands for, whatever the worker's locale is."""
    return text.encode("utf-8", "surrogateescape")
