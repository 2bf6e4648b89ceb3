"""The worker's side of its shims: it has them started, follows them, and tells them to stop.

A shim is followed by its lock alone, whether this worker or an earlier one had it forked, so that
adopting a running job is the ordinary path.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from relayq import clock
from relayq.errors import RelayqError
from relayq.host import spool as files
from relayq.host import tree
from relayq.host.followers import Followers

# Longer than the fork server's own patience with a shim.
_PATIENCE = 15.0
_SWEEP_PATIENCE = 10.0
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])

_writing = threading.Lock()
_followers = Followers()


class SpawnFailed(RelayqError):
    """No shim could be started for an attempt; none will start later either."""


class SpoolTaken(RelayqError):
    """Another worker process on this machine owns the spool; `.pid` is its process id."""

    def __init__(self, spool: Path, pid: int | None) -> None:
        super().__init__(
            f"another worker (process {pid or 'unknown'}) already works in {spool}",
            hint="relayq worker stop",
        )
        self.pid = pid


class TreeSurvives(RelayqError):
    """Processes of a dead shim can't be killed; `.pids` names them."""

    def __init__(self, directory: Path, pids: list[int]) -> None:
        super().__init__(f"processes of {directory.name} can't be killed: {pids}")
        self.pids = pids


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How an attempt ended, in the words of its shim.

    The last three are told of one with limits only: whether the kernel ended a process for want of
    memory or refused one more, and by limit why it couldn't be held.
    """

    status: str
    code: int | None
    signal: int | None
    reason: str
    error: str | None
    started_at: float | None
    ended_at: float
    run_time: float
    output_bytes: int
    dropped_bytes: int
    oom: bool | None = None
    refused: bool | None = None
    skipped: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The processes of a started attempt; `leader_started` tells its leader from a namesake."""

    shim: int
    leader: int
    leader_started: str | None
    pgid: int
    boot: str
    started_at: float


_Facts = TypeVar("_Facts", ExitRecord, RunFacts)


class ForkServer:
    """The process that forks this worker's shims, started again whenever it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The fork server's process id, None while there is none."""
        process = self._process
        return process.pid if process is not None else None

    def start(self) -> None:
        """Start the fork server unless it runs."""
        with self._lock:
            self._ensure()

    def close(self) -> None:
        """End the fork server; running shims are untouched."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def spawn(self, directory: Path, secrets: Mapping[str, str] | None = None) -> int:
        """Have a shim forked, and given the job's secrets; return its pid once it has its lock."""
        path = os.path.abspath(directory)
        order = json.dumps([path, dict(secrets)] if secrets else path).encode() + b"\n"
        error = "the fork server died twice"
        # Once more after its death: two shims for one attempt are harmless, one gets the lock.
        for _ in range(2):
            answer = self._ask(order)
            if answer is not None and "shim" in answer:
                return int(answer["shim"])
            if (taken := _taken_by(path)) is not None:
                return taken
            if answer is not None:
                error = str(answer.get("error"))
                break
        return _refuse(path, error)

    def _ask(self, order: bytes) -> dict[str, Any] | None:
        """Return the fork server's answer, None when it died on the way."""
        with self._lock:
            channel = self._ensure()
            try:
                channel.sendall(order)
                answer: dict[str, Any] = json.loads(_read_line(channel))
            except (OSError, ValueError):
                self._drop(at_once=True)
                return None
            return answer

    def _ensure(self) -> socket.socket:
        """Return the channel to a fork server that runs, as far as can be seen."""
        if self._is_closed:
            raise SpawnFailed("the fork server was closed")
        if self._process is not None and self._process.poll() is not None:
            self._drop()
        if self._channel is None:
            self._process, self._channel = _start_server()
        return self._channel

    def _drop(self, *, at_once: bool = False) -> None:
        """End the server and forget it."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            if at_once:
                self._process.kill()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._channel = None


def _start_server() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    code = (
        f"import sys; sys.path.insert(0, {_PACKAGE_ROOT!r}); "
        f"from relayq.host.forkserver import main; main({theirs.fileno()})"
    )
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
            )
        ours.settimeout(_PATIENCE)
    except OSError as error:
        ours.close()
        raise SpawnFailed(f"can't start the fork server: {error}") from error
    try:
        _read_line(ours)
    except OSError as error:
        ours.close()
        process.kill()
        raise SpawnFailed(f"the fork server ended at once, {process.wait()}") from error
    return process, ours


def _read_line(channel: socket.socket) -> bytes:
    raw = b""
    while not raw.endswith(b"\n"):
        piece = channel.recv(4096)
        if not piece:
            raise ConnectionResetError("the fork server is gone")
        raw += piece
    return raw


def _taken_by(path: str) -> int | None:
    """Return the pid of the shim that took the attempt after all, None when none did."""
    if not files.is_held(path) and not os.path.exists(os.path.join(path, files.EXIT)):
        return None
    deadline = monotonic() + 1.0
    while (pid := files.holder(path)) is None and monotonic() < deadline:
        clock.sleep(0.001)
    return pid or 0


def _refuse(path: str, error: str) -> int:
    """Close the attempt to shims that come late, and raise; or return the one that came."""
    failed = SpawnFailed(f"can't start a shim for {os.path.basename(path)}: {error}")
    try:
        lock = files.take_lock(path)
        if lock is None:
            return _taken_by(path) or 0
        try:
            if not files.is_closed(path):
                reserved = files.reserve(path)
                try:
                    files.settle(path, reserved, files.unstarted("host", error))
                finally:
                    os.close(reserved)
        finally:
            os.close(lock)
    except OSError as impossible:
        raise failed from impossible
    raise failed


class Shim:
    """One attempt's shim, as seen through the attempt's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = os.path.abspath(directory)
        self._ended = threading.Event()
        self._following = threading.Lock()
        self._is_followed = False

    @property
    def ended(self) -> threading.Event:
        """Set once the shim is gone."""
        with self._following:
            if not self._is_followed:
                self._is_followed = True
                _followers.follow(self._follow)
        return self._ended

    def is_alive(self) -> bool:
        """Say whether the shim holds its lock."""
        return files.is_held(self._path)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the shim is gone; False when it isn't after `timeout` seconds."""
        return self.ended.wait(timeout)

    def exit_record(self) -> ExitRecord | None:
        """Return how the attempt ended; None while it runs, or when its shim died before."""
        record = self._load(files.EXIT)
        if record is None and not self.is_alive():
            # Killed between writing the record and naming it, or named since the look above.
            record = self._load(files.EXIT) or self._load(files.RESERVED)
        return _build(ExitRecord, record) if record and "status" in record else None

    def run_facts(self) -> RunFacts | None:
        """Return the attempt's processes, None before its leader was started."""
        facts = self._load(files.RUN)
        return _build(RunFacts, facts) if facts else None

    def kill(self, reason: str, grace: float) -> None:
        """Have the whole tree ended; its exit record will give the reason."""
        self._tell({"op": "kill", "reason": reason, "grace": grace})

    def look(self) -> None:
        """Have the shim look at once at what the worker wrote for it, also one that was stopped."""
        pid = files.holder(self._path)
        # Only to a holder of the lock: the pid may belong to somebody else by now.
        if pid is not None and self.is_alive():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGUSR1)
                os.kill(pid, signal.SIGCONT)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the job how large its terminal is."""
        files.replace(os.path.join(self._path, files.SIZE), {"rows": rows, "columns": columns})
        self.look()

    def freeze(self) -> None:
        """Have the tree stopped until `thaw`; a kill that was asked for stands."""
        self._tell({"op": "freeze"})

    def thaw(self) -> None:
        """Take a freeze back; without a permit the tree stays frozen."""
        self._tell({"op": "thaw"})

    def _tell(self, control: dict[str, Any]) -> None:
        path = os.path.join(self._path, files.CONTROL)
        with _writing:
            if control["op"] != "kill" and (files.load(path) or {}).get("op") == "kill":
                return
            files.replace(path, control)
        self.look()

    def _load(self, name: str) -> files.Facts | None:
        return files.load(os.path.join(self._path, name))

    def _follow(self) -> None:
        with suppress(OSError):
            fd = os.open(os.path.join(self._path, files.LOCK), os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)
        self._ended.set()


def _build(kind: type[_Facts], facts: files.Facts) -> _Facts:
    values: dict[str, Any] = {field.name: facts.get(field.name) for field in fields(kind)}
    return kind(**values)


def make_attempt_directory(spool: Path, name: str, command: Mapping[str, Any]) -> Path:
    """Make the directory of an attempt, ready for `ForkServer.spawn`."""
    directory = spool / name
    try:
        os.mkdir(directory, 0o700)
    except FileNotFoundError:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    files.write_new(os.path.join(directory, files.COMMAND), dict(command))
    return directory


def attempts(spool: Path) -> list[Path]:
    """Return every attempt's directory, whatever became of it."""
    try:
        return sorted(one for one in spool.iterdir() if one.name.count(".") >= 2 and one.is_dir())
    except FileNotFoundError:
        return []


def sweep(directory: Path) -> None:
    """End what a dead shim left of its attempt, and keep late shims from it.

    Does nothing while a shim holds the lock or when it left an exit record. Raises TreeSurvives
    when something can't be killed.
    """
    path = os.path.abspath(directory)
    if not os.path.exists(path):
        # Somebody deleted it; nothing can be kept from there, but something may be left.
        if tree.IS_LINUX:
            _kill_left_over(directory)
        return
    lock = files.take_lock(path)
    if lock is None:
        return
    try:
        if not os.path.exists(os.path.join(path, files.EXIT)):
            with open(os.path.join(path, files.SWEPT), "wb"):
                pass
            if tree.IS_LINUX:
                _kill_left_over(directory)
    finally:
        os.close(lock)


def _kill_left_over(directory: Path) -> None:
    shim = Shim(directory)
    facts = shim.run_facts()
    if facts is not None and facts.boot != clock.boot_id():
        return
    id, number, *_ = directory.name.split(".")
    command = files.load(str(directory / files.COMMAND)) or {}
    environment = command.get("env") or {"RELAYQ_JOB_ID": id, "RELAYQ_ATTEMPT": number}
    tags = {
        f"{name}={environment[name]}".encode("utf-8", "surrogateescape")
        for name in ("RELAYQ_JOB_ID", "RELAYQ_ATTEMPT")
        if name in environment
    }

    def left() -> list[tree.Process]:
        return _left_over(facts, tags if len(tags) == 2 else set())

    deadline = monotonic() + _SWEEP_PATIENCE
    while found := left():
        if monotonic() >= deadline:
            raise TreeSurvives(directory, [one.pid for one in found])
        tree.kill_all(left)
        clock.sleep(0.01)


def _left_over(facts: RunFacts | None, tags: set[bytes]) -> list[tree.Process]:
    """Return the processes of the attempt: its leader, what wears its tags, what is below."""
    table = tree.processes()
    roots = [
        one
        for one in table.values()
        if (facts and one.pid == facts.leader and one.started == facts.leader_started)
        or (tags and tags.issubset(tree.environment(one.pid)))
    ]
    found = roots + tree.descendants(table, [one.pid for one in roots])
    # A zombie is dead, and stays in the table where process 1 doesn't reap.
    return [one for one in found if one.state != "Z" and one.pid != os.getpid()]


class Permit:
    """The deadline on the boot clock until which this worker's shims may run their jobs."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._boot = clock.boot_id()

    def extend_to(self, deadline: float) -> None:
        """Permit until `deadline`; a later one of this boot stands."""
        with _writing:
            if (self.deadline() or 0.0) < deadline:
                self._write(deadline)

    def end_by(self, deadline: float) -> None:
        """Permit until `deadline` at most; an earlier one stands."""
        with _writing:
            if (self.deadline() or 0.0) > deadline:
                self._write(deadline)

    def _write(self, deadline: float) -> None:
        permit = {"boot": self._boot, "deadline": deadline}
        try:
            files.replace(self._path, permit)
        except OSError as error:
            # A full disk has no room for a new file, and must not freeze every job of this host.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            files.overwrite(self._path, permit)

    def deadline(self) -> float | None:
        """Return the deadline, perhaps passed; None when this boot of the machine has none."""
        facts = files.load(self._path) or {}
        return float(facts["deadline"]) if facts.get("boot") == self._boot else None


class SpoolLock:
    """The one worker process's right to a spool, held until `release` or its death."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock; raises SpoolTaken."""
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._spool / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(20):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                clock.sleep(0.005)  # a look at whether a worker runs holds it for a moment, too
            else:
                files.write_holder(fd)
                self._fd = fd
                return
        pid = os.pread(fd, 32, 0)
        os.close(fd)
        raise SpoolTaken(self._spool, int(pid) if pid.isdigit() else None)

    def release(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> SpoolLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
