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
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from relayq.host import tree
from relayq.host.spool import Facts

# The shim's own; the fork server's directory is "/", too.
_OWN_UMASK = 0o077


class Program(NamedTuple):
    """A command as execve(2) takes it; `paths` are the files to try, in this order."""

    paths: list[bytes]
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
    failure: int | None  # after a fork only
    stdin: int | None  # to write to, when the input comes while the job runs


#: What a command can't help: no memory, process or descriptor to be had, a full or a bad disk.
_HOSTS = frozenset(
    {
        errno.EAGAIN,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
    }
)


class Failure(NamedTuple):
    """Why the command didn't run: at which stage, with which errno."""

    stage: str
    number: int

    @property
    def is_hosts(self) -> bool:
        """Whether the host lacked something, and not the command."""
        return self.number in _HOSTS


def start(command: Facts, place: Callable[[int], None] | None = None) -> Leader | Failure:
    """Start the leader, or say why its command didn't run.

    A forked one tells that through its `failure` pipe once it has ended. `place` is called with
    its id before it runs anything of the command.
    """
    program = _prepare(command)
    if command.get("tty"):
        return _fork(program, _terminal(), place)
    streams = _pipes(fed=bool(command.get("feed")))
    if tree.IS_LINUX and place is None:
        return _spawn(program, streams)
    return _fork(program, streams, place)


def _spawn(program: Program, streams: Streams) -> Leader | Failure:
    """Start the command as vfork(2) does, without a copy of this process.

    A fork makes 400 page faults in the child and half as many here, a third of a short job's
    time. What posix_spawn(3) can't set, the child takes over from this process, which has but one
    thread.
    """
    failure: Failure | None = None
    stage = "stdin"
    opened = None
    try:
        stdin, stdout, stderr = streams.theirs
        if stdin is None:
            stdin = opened = os.open(program.stdin, os.O_RDONLY | os.O_CLOEXEC)
        os.umask(program.umask)
        stage = "cwd"
        os.chdir(program.cwd)
        stage = "exec"
        actions = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((stdin, stdout, stderr))]
        pid = _first(
            program,
            lambda path: os.posix_spawn(
                path, program.argv, program.environment, file_actions=actions, setsid=True
            ),
        )
    except OSError as error:
        if stage == "exec" and error.errno in (errno.EAGAIN, errno.ENOMEM):
            _close(*streams.ours)
            raise  # no room for a process at all
        failure = Failure(stage, error.errno or 0)
    except ValueError:  # a NUL byte in a word, say
        failure = Failure(stage, errno.EINVAL)
    finally:
        os.umask(_OWN_UMASK)
        os.chdir("/")
        _close(opened, *streams.theirs)
    if failure is not None:
        _close(*streams.ours)
        return failure
    return _leader(pid, streams, None)


def _first(program: Program, execute: Callable[[bytes], int]) -> int:
    """Execute the first path that can be; raise as execvpe does when none can."""
    failed = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in program.paths:
        try:
            return execute(path)
        except OSError as error:
            if failed.errno in (errno.ENOENT, errno.ENOTDIR):
                failed = error
    raise failed


def _fork(program: Program, streams: Streams, place: Callable[[int], None] | None) -> Leader:
    """Start the command by fork(2): a terminal or a control group can't be had otherwise."""
    pipes: list[int] = []
    shim = os.getpid()
    try:
        pipes += os.pipe()
        pipes += os.pipe()
        pid = os.fork()
    except OSError:
        _close(*pipes, *streams.theirs, *streams.ours)
        raise
    failure, failure_writer, gate, gate_writer = pipes
    if pid == 0:
        os.close(gate_writer)
        _become(program, shim, streams.theirs, failure_writer, gate)
    if place is not None:
        place(pid)
    _close(*streams.theirs, failure_writer, gate, gate_writer)
    return _leader(pid, streams, failure)


def _leader(pid: int, streams: Streams, failure: int | None) -> Leader:
    stdin, stdout, stderr = streams.ours
    assert stdout is not None  # only the input may be missing
    return Leader(pid, stdout, stderr, failure, stdin)


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
    if leader.failure is None:
        return None
    stage, _, number = os.read(leader.failure, 64).decode().partition(" ")
    return Failure(stage, int(number)) if stage else None


def explain(failure: Failure, command: Facts) -> str:
    """Return the failure as an error that names what was missing."""
    named = {"cwd": command["cwd"], "stdin": command["stdin"]}.get(
        failure.stage, command["argv"][0]
    )
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
    stdin = _raw(command["stdin"] or os.devnull)
    return Program(
        _paths(argv[0], cwd, environment), argv, environment, cwd, stdin, command["umask"]
    )


def _paths(name: bytes, cwd: bytes, environment: dict[bytes, bytes]) -> list[bytes]:
    """Return the program that PATH names; all that it could be when that takes a closer look."""
    if b"/" in name:
        return [name]
    entries = environment.get(b"PATH", os.defpath.encode()).split(b":")
    paths = [os.path.join(cwd, entry, name) for entry in entries]
    for path in paths:
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return [path]
    return paths


def _become(
    program: Program, shim: int, streams: tuple[int | None, int, int], failure: int, gate: int
) -> NoReturn:
    """Turn the forked child into the command, once `gate` is closed; never return."""
    stage = "stdin"
    try:
        # What the shim ignores it handles, and execve gives handled signals their defaults; this
        # one is for a cancel that comes before.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        tree.die_with_parent()
        os.read(gate, 1)
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
        _first(program, lambda path: os.execve(path, program.argv, program.environment))
    except OSError as error:
        os.write(failure, f"{stage} {error.errno}".encode())
    except BaseException:  # a NUL byte in a word, say: never go on as a second shim
        os.write(failure, f"{stage} {errno.EINVAL}".encode())
    os._exit(127)


def _raw(text: str) -> bytes:
    """Return the bytes that the text stands for, whatever the worker's locale is."""
    return text.encode("utf-8", "surrogateescape")
