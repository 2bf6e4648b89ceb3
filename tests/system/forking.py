"""`python -m relayq` for tests that run many commands: forked from a process that has imported it.

A command's start is mostly imports, 0.1 to 0.2 s of CPU, and the tests run some thousands. What is
forked is a process of its own, with the arguments, environment, directory and standard streams that
were asked for, and is relayq from its `main` to its exit code.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

#: What an interpreter reads before any of our code runs: with others, it has to be a real one.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")


class Forked:
    """The process that commands are forked from; one for each process that runs tests."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # It outlives the test that it is started in, and belongs to no home of a test's.
        self._environ = {n: v for n, v in os.environ.items() if not n.startswith("RELAYQ_")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs.fileno()],
                env=self._environ,
                stdin=subprocess.DEVNULL,
            )
        self._asked = ours
        self._lock = threading.Lock()
        atexit.register(self.close)

    def close(self) -> None:
        """End it; the commands that it has begun go on."""
        self._asked.close()
        self._process.wait(10)

    def can(self, env: Mapping[str, str]) -> bool:
        """Tell whether a command with this environment may be forked."""
        names = {*env, *self._environ}
        return not any(
            env.get(name) != self._environ.get(name)
            for name in names
            if name.startswith(_READ_AT_START) and name != "PYTHONPATH"
        )

    def begin(
        self, arguments: Sequence[str], env: Mapping[str, str], cwd: str, streams: Sequence[int]
    ) -> Running:
        """Start a command with these three streams."""
        head = json.dumps(
            {"argv": [*map(os.fsdecode, arguments)], "env": dict(env), "cwd": cwd}
        ).encode()
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            length = len(head).to_bytes(8, "big")
            socket.send_fds(self._asked, [length], [*streams, theirs.fileno()])
        ours.sendall(head)
        return Running(ours)


class Running:
    """A command that was begun."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self.pid = int.from_bytes(_all_of(told, 8), "big")

    def wait(self, within: float | None) -> int:
        """Return the exit code, below 0 for a signal; raises TimeoutError."""
        self._told.settimeout(within)
        code = int.from_bytes(_all_of(self._told, 8), "big", signed=True)
        self._told.close()
        return code


_forked: Forked | None = None


def run(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | Path | None = None,
    timeout: float,
    text: bool = True,
    input: Any = None,
    **streams: int | IO[Any] | None,
) -> subprocess.CompletedProcess[Any]:
    """Run `python -m relayq` as `subprocess.run` would, forked if that can be."""
    global _forked
    if _forked is None:
        _forked = Forked()
    if not _forked.can(env):
        return subprocess.run(
            [sys.executable, "-m", "relayq", *arguments],
            env=dict(env),
            cwd=cwd,
            timeout=timeout,
            text=text,
            **({"input": input} if input is not None else {"stdin": streams.pop("stdin")}),
            **{name: stream for name, stream in streams.items() if name != "stdin"},
        )
    end = time.monotonic() + timeout
    with ExitStack() as held:
        if input is not None:
            written = held.enter_context(tempfile.TemporaryFile())
            written.write(input.encode() if text else input)
            written.seek(0)
            streams["stdin"] = written
        readers: dict[str, Reader] = {}
        numbers = [_number(name, streams[name], readers, held) for name in _STREAMS]
        if streams["stderr"] == subprocess.STDOUT:
            numbers[2] = numbers[1]
        running = _forked.begin(arguments, env, str(cwd or Path.cwd()), numbers)
        held.close()
        try:
            code = running.wait(timeout)
            said = {name: reader.all(end - time.monotonic()) for name, reader in readers.items()}
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(["relayq", *arguments], timeout) from None
    shown = {name: _decoded(each) if text else each for name, each in said.items()}
    argv = [sys.executable, "-m", "relayq", *arguments]
    return subprocess.CompletedProcess(argv, code, shown.get("stdout"), shown.get("stderr"))


_STREAMS = ("stdin", "stdout", "stderr")


def _number(
    name: str, stream: int | IO[Any] | None, readers: dict[str, Reader], held: ExitStack
) -> int:
    """Return the descriptor that a command gets for one of its streams."""
    if stream == subprocess.PIPE:
        ours, theirs = os.pipe()
        readers[name] = Reader(ours)
        held.callback(os.close, theirs)
        return theirs
    if stream in (subprocess.DEVNULL, subprocess.STDOUT):
        number = os.open(os.devnull, os.O_RDWR)
        held.callback(os.close, number)
        return number
    if stream is None:
        return _STREAMS.index(name)
    return stream if isinstance(stream, int) else stream.fileno()


class Reader:
    """Reads a pipe to its end, so that who writes to it never waits."""

    def __init__(self, number: int) -> None:
        self._found = b""
        self._thread = threading.Thread(target=self._read, args=[number], daemon=True)
        self._thread.start()

    def _read(self, number: int) -> None:
        with open(number, "rb") as file:
            self._found = file.read()

    def all(self, within: float) -> bytes:
        """Return what was written; raises TimeoutError while somebody has the other end."""
        self._thread.join(max(0.0, within))
        if self._thread.is_alive():
            raise TimeoutError
        return self._found


def _decoded(found: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(found)).read()


def _all_of(told: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = told.recv(size - len(found))
        if not piece:
            raise EOFError("the process that commands are forked from has ended")
        found += piece
    return found


def _serve(asked: socket.socket) -> None:
    """Fork until nobody can ask any more."""
    _import_commands()
    # Who waits for a command is a process of its own, which nobody waits for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        length, descriptors, _, _ = socket.recv_fds(asked, 8, 4)
        if not length:
            return
        if os.fork() == 0:
            asked.close()
            _attend(int.from_bytes(length, "big"), descriptors)
        for one in descriptors:
            os.close(one)


def _import_commands() -> None:
    import redis  # noqa: F401

    import relayq.client
    import relayq.embedded  # noqa: F401
    from relayq.cli import COMMANDS

    for place, _ in COMMANDS.values():
        import_module(place.partition(":")[0])


def _attend(length: int, descriptors: list[int]) -> None:
    """Be who waits for one command, and never return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, number = descriptors
    told = socket.socket(fileno=number)
    head = json.loads(_all_of(told, length))
    pid = os.fork()
    if pid == 0:
        told.close()
        _become(head, streams)
    for one in streams:
        os.close(one)
    told.sendall(pid.to_bytes(8, "big"))
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        told.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
    os._exit(0)


def _become(head: dict, streams: list[int]) -> None:
    """Be the command, and never return."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    os.environ.clear()
    os.environ.update(head["env"])
    os.chdir(head["cwd"])
    sys.argv = ["relayq", *head["argv"]]
    sys.path[0] = ""
    sys.stdin, sys.stdout = _text(0, "r"), _text(1, "w")
    sys.stderr = _text(2, "w", errors="backslashreplace", line_buffering=True)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    from relayq.cli import main

    code: object = 1
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    os._exit(code or 0)


def _text(number: int, mode: str, **options: object) -> io.TextIOWrapper:
    """Return a standard stream as the interpreter makes it."""
    raw = open(number, f"{mode}b", closefd=False)  # noqa: SIM115 - it is the process's own
    before = {"r": sys.__stdin__, "w": sys.__stdout__}[mode]
    how = {"encoding": before.encoding, "errors": before.errors, **options}
    if mode == "w" and os.isatty(number):
        how["line_buffering"] = True
    return io.TextIOWrapper(raw, **how)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
