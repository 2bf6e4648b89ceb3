"""The process above each job: its session, its output on disk, its exit status, its end.

A shim is forked by the fork server, needs neither it nor the worker afterwards, and is alive
exactly while it holds its lock. It obeys two files: the worker's permit, without which nothing
starts or runs on, and the attempt's control file. Standard library only, one thread.
"""

from __future__ import annotations

import os
import selectors
import signal
from contextlib import suppress
from enum import Enum, auto
from time import monotonic  # stands still while the machine sleeps, as a time limit should

from relayq import clock
from relayq.host import leader, spool, tree
from relayq.host.feed import Feed
from relayq.host.spool import Facts
from relayq.model.output import MAX_FRAME, STDERR, STDOUT, frame

READY = "ok"

# Handled, by doing nothing, in the fork server and its shims. Who ends a session (TERM, INT, HUP,
# QUIT) doesn't mean the jobs; CHLD and USR1 only have to arrive; a full disk or a closed pipe is
# an error and no end. Not ignored, since a leader would inherit that.
HANDLED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD),
    *(signal.SIGUSR1, signal.SIGPIPE, signal.SIGXFSZ),
)

# The fork server's descriptors are few and low; a higher limit would cost on systems without
# close_range(2).
_MOST_DESCRIPTORS = 1024
_LINGERERS_GRACE = 1.0
_LONGEST_ROUND = 1.0
_WATCH = 0.5  # how often the tree is looked at where daemons can't be inherited


class Phase(Enum):
    """Where an attempt is; it only ever moves down this list."""

    WAITING = auto()  # for a permit
    RUNNING = auto()
    LINGERING = auto()  # the leader has ended, something else hasn't
    ENDING = auto()  # SIGTERM was sent
    KILLING = auto()
    OVER = auto()


def main(directory: str, ready: int, boot: str) -> None:
    """Be the shim of the attempt in `directory`; tell through the pipe `ready` when it is."""
    _detach(ready)
    lock = None
    try:
        lock = spool.take_lock(directory)
        if lock is None:
            raise OSError("another process holds the lock")
        if spool.is_closed(directory):
            raise OSError("the attempt has ended already")
        command = spool.load(os.path.join(directory, spool.COMMAND))
        if command is None:
            raise OSError(f"can't read {spool.COMMAND}")
        with suppress(OSError):
            spool.write_holder(lock)
        reserved = spool.reserve(directory)
        output = Output(os.path.join(directory, spool.OUTPUT))
    except OSError as error:
        if lock is not None:
            os.close(lock)  # before it is told: a held lock would say that the attempt goes on
        os.write(ready, str(error).encode("utf-8", "replace")[:1024])
        return
    os.write(ready, READY.encode())
    os.close(ready)
    try:
        attempt = Attempt(directory, command, output, reserved=reserved, boot=boot)
        _settle(directory, reserved, attempt.run())
    except BaseException:
        import traceback  # half a megabyte, hopefully for nothing

        with suppress(OSError), open(os.path.join(directory, "shim.error"), "w") as file:
            traceback.print_exc(file=file)
        raise  # the fork server ends what is left
    os.close(lock)  # a millisecond sooner than by dying


def _detach(ready: int) -> None:
    """Leave the fork server: its session and every descriptor but `ready`."""
    signal.set_wakeup_fd(-1)
    # Above all its socket: while anybody holds that, the worker can't see that the server died.
    os.closerange(3, ready)
    os.closerange(ready + 1, _MOST_DESCRIPTORS)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)
    os.setsid()
    os.umask(0o077)
    tree.adopt_orphans()


def _settle(directory: str, reserved: int, record: Facts) -> None:
    """Write the exit record, patiently: without it a success would count as lost."""
    for _ in range(60):
        try:
            spool.settle(directory, reserved, record)
        except OSError:
            clock.sleep(1.0)
        else:
            return
    spool.settle(directory, reserved, record)


class Output:
    """The job's output on disk, whole frames only."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self._is_torn = False
        self.size = 0
        self.dropped = 0

    def append(self, channel: int, data: bytes) -> None:
        """Append a frame; drop and count it when the disk has no room."""
        try:
            if self._is_torn:
                os.ftruncate(self._fd, self.size)
            self._is_torn = True
            raw = frame(channel, clock.now(), data)
            spool.write_all(self._fd, raw)
        except OSError:
            self.dropped += len(data)
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
                self._is_torn = False
        else:
            self._is_torn = False
            self.size += len(raw)


class Wishes:
    """What the worker wants: its permit and the attempt's control file, as last read."""

    def __init__(self, directory: str, permit: str, boot: str) -> None:
        self._control = os.path.join(directory, spool.CONTROL)
        self._permit = permit
        self._boot = boot
        self._deadline = 0.0
        self._is_paused = False
        self.kill: str | None = None
        self.grace: float | None = None

    def read(self) -> None:
        """Read both files."""
        permit = spool.load(self._permit) or {}
        is_ours = permit.get("boot") == self._boot
        self._deadline = float(permit.get("deadline") or 0.0) if is_ours else 0.0
        control = spool.load(self._control) or {}
        self._is_paused = control.get("op") == "freeze"
        if control.get("op") == "kill":
            self.kill = str(control.get("reason") or "cancel")
            self.grace = control.get("grace")

    def permitted(self) -> float:
        """Return for how many seconds from now the job may run, 0 when it may not."""
        return 0.0 if self._is_paused else max(0.0, self._deadline - clock.boottime())


class RunClock:
    """The run time that a time limit counts: without the time spent frozen."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Go, or go on."""
        self._since = monotonic() if self._since is None else self._since

    def stop(self) -> None:
        """Stand still."""
        self._before, self._since = self.read(), None

    def read(self) -> float:
        """Return the seconds counted so far."""
        return self._before + (0.0 if self._since is None else monotonic() - self._since)


class Attempt:
    """One attempt, from its permit to its exit record."""

    def __init__(
        self, directory: str, command: Facts, output: Output, *, reserved: int, boot: str
    ) -> None:
        self._directory = directory
        self._command = command
        self._output = output
        self._reserved = reserved
        self._boot = boot
        self._wishes = Wishes(directory, command["permit"], boot)
        self._tree = tree.Tree()
        self._clock = RunClock()
        self._phase = Phase.WAITING
        self._deadline = 0.0  # when the phase's patience ends (monotonic)
        self._next_look = 0.0
        self._round = 0.01
        self._leader: leader.Leader | None = None
        self._feed: Feed | None = None
        self._size: Facts | None = None
        self._status: int | None = None
        self._is_frozen = False
        self._is_childless = True
        self._reason: str | None = None
        self._error: str | None = None
        self._started_at = 0.0
        self._selector = selectors.PollSelector()
        self._wake = self._open_wake()

    def run(self) -> Facts:
        """Take the attempt to its end and return its exit record."""
        self._look()
        while True:
            self._advance()
            if self._phase is Phase.OVER:
                break
            self._poll()
        if self._leader is None:
            return spool.unstarted(self._reason or "spawn", self._error)
        if self._feed is not None:
            if self._feed.fd in self._selector.get_map():
                self._selector.unregister(self._feed.fd)
            self._feed.close()
        self._drain()
        return self._record(self._leader)

    def _open_wake(self) -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ)
        return reader

    # What happened

    def _poll(self) -> None:
        """Sleep until something happens or is due, then take it in."""
        for key, _ in self._selector.select(self._patience()):
            if key.fd == self._wake:
                numbers = os.read(self._wake, 4096)
                if signal.SIGCHLD in numbers:
                    self._reap()
                if signal.SIGUSR1 in numbers:
                    self._look()
            elif self._feed is not None and key.fd == self._feed.fd:
                self._pump()
            else:
                self._read(key.fd, key.data)
        if monotonic() >= self._next_look or self._is_out_of_permit():
            self._look()

    def _patience(self) -> float:
        """Return the seconds until something is due."""
        now = monotonic()
        due = [self._next_look - now]
        if self._phase is Phase.RUNNING and not self._is_frozen:
            due.append(self._wishes.permitted())
            if self._command["timeout"] is not None:
                due.append(self._command["timeout"] - self._clock.read())
        elif self._phase in (Phase.LINGERING, Phase.ENDING, Phase.KILLING):
            due.append(self._deadline - now)
        return max(0.0, min(due))

    def _is_out_of_permit(self) -> bool:
        is_active = self._phase in (Phase.RUNNING, Phase.LINGERING) and not self._is_frozen
        return is_active and not self._wishes.permitted()

    def _look(self) -> None:
        """Read what the worker wants."""
        self._wishes.read()
        self._next_look = monotonic() + float(self._command["check"])
        if not tree.IS_LINUX:
            self._next_look = min(self._next_look, monotonic() + _WATCH)
            if self._leader is not None:
                self._tree.members()
        if self._is_frozen:
            self._tree.freeze()  # somebody else's SIGCONT gives no permit
        self._pump()
        if self._leader is not None and self._command.get("tty"):
            size = spool.load(os.path.join(self._directory, spool.SIZE))
            if size is not None and size != self._size:
                self._size = size
                with suppress(OSError):  # the terminal's end is closed
                    leader.resize(self._leader.stdout, size["rows"], size["columns"])

    def _pump(self) -> None:
        """Feed the leader what its input has grown by."""
        feed = self._feed
        if feed is None or not feed.is_open:
            return
        waits = feed.fd in self._selector.get_map()
        # A full pipe wakes the loop when there is room; else the worker's signal or the next look.
        if feed.pump():
            if not waits:
                self._selector.register(feed.fd, selectors.EVENT_WRITE)
        elif waits:
            self._selector.unregister(feed.fd)

    def _reap(self) -> None:
        """Take the ended children, the leader's status among them."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if self._leader is not None and pid == self._leader.pid:
                    self._status = status
                    self._clock.stop()
        except ChildProcessError:
            self._is_childless = True

    def _read(self, fd: int, channel: int) -> bool:
        """Take one piece of output; False when there is none now."""
        try:
            data = os.read(fd, MAX_FRAME)
        except BlockingIOError:
            return False
        except OSError:  # a terminal that its last program has left
            data = b""
        if data:
            self._output.append(channel, data)
        else:
            self._selector.unregister(fd)
            os.close(fd)
        return bool(data)

    def _drain(self) -> None:
        """Take what the ended processes left in the pipes.

        Bounded: somebody outside the tree may have opened one and may write to it for ever.
        """
        for key in list(self._selector.get_map().values()):
            if key.fd != self._wake:
                for _ in range(1024):
                    if not self._read(int(key.fd), key.data):
                        break

    # What follows

    def _advance(self) -> None:
        """Do what the present phase asks for."""
        match self._phase:
            case Phase.WAITING:
                self._start_if_permitted()
            case Phase.RUNNING:
                self._supervise()
            case Phase.OVER:
                return
        if self._phase in (Phase.LINGERING, Phase.ENDING, Phase.KILLING):
            self._finish_off()

    def _start_if_permitted(self) -> None:
        if self._wishes.kill is not None:
            self._reason, self._phase = self._wishes.kill, Phase.OVER
        elif self._wishes.permitted():
            try:
                self._start()
            except OSError as error:
                self._error = f"can't start a process: {os.strerror(error.errno or 0).lower()}"
                self._phase = Phase.OVER

    def _start(self) -> None:
        self._started_at = clock.now()
        self._leader = leader.start(self._command)
        self._tree.group = self._leader.pid
        self._is_childless = False
        self._phase = Phase.RUNNING
        self._clock.start()
        for fd, channel in ((self._leader.stdout, STDOUT), (self._leader.stderr, STDERR)):
            if fd is not None:
                os.set_blocking(fd, False)
                self._selector.register(fd, selectors.EVENT_READ, channel)
        if self._leader.stdin is not None:
            self._feed = Feed(self._directory, self._leader.stdin)
            self._pump()
        shown = tree.process(self._leader.pid)
        facts = {
            "shim": os.getpid(),
            "leader": self._leader.pid,
            "leader_started": shown.started if shown else None,
            "pgid": self._leader.pid,
            "boot": self._boot,
            "started_at": self._started_at,
        }
        with suppress(OSError):  # a full disk: without it a sweep has only the environment
            spool.replace(os.path.join(self._directory, spool.RUN), facts)
        with suppress(OSError):
            os.fsync(self._reserved)  # here it costs nothing: the command is being loaded

    def _supervise(self) -> None:
        """See to a running leader: its end, its owner's wish, its time limit, its permit."""
        timeout = self._command["timeout"]
        if self._status is not None:
            self._phase = Phase.LINGERING
            self._deadline = monotonic() + float(self._command["linger"])
        elif self._wishes.kill is not None:
            self._end(self._wishes.kill, self._grace())
        elif timeout is not None and self._clock.read() >= timeout:
            self._end("timeout", float(self._command["grace"]))
        else:
            self._freeze_or_thaw()

    def _freeze_or_thaw(self) -> None:
        if not self._is_frozen and not self._wishes.permitted():
            self._tree.freeze()
            self._clock.stop()
            self._is_frozen = True
        elif self._is_frozen and self._wishes.permitted():
            self._is_frozen = False
            if self._status is None:
                self._clock.start()
            self._tree.thaw()

    def _finish_off(self) -> None:
        """Wait for what is left of the tree; end it when its time is over."""
        now = monotonic()
        if self._tree.is_empty(childless=self._is_childless):
            self._phase = Phase.OVER
        elif self._phase is Phase.LINGERING:
            # A process substitution (`> >(gzip > file)`) may hold no pipe of ours and still
            # have work to do, so the end of the pipes doesn't cut this short.
            if now >= self._deadline or self._wishes.kill is not None:
                self._end(None, min(_LINGERERS_GRACE, float(self._command["grace"])))
            else:
                self._freeze_or_thaw()
        elif self._phase is Phase.ENDING:
            if self._wishes.kill is not None:
                self._deadline = min(self._deadline, now + self._grace())
            if now >= self._deadline:
                self._phase, self._deadline = Phase.KILLING, now
        if self._phase is Phase.KILLING and now >= self._deadline:
            # No limit to the rounds: an attempt isn't over while a process of it lives.
            self._tree.kill()
            self._reap()
            self._deadline = monotonic() + self._round
            self._round = min(_LONGEST_ROUND, self._round * 2)

    def _grace(self) -> float:
        wished = self._wishes.grace
        return float(self._command["grace"] if wished is None else wished)

    def _end(self, reason: str | None, grace: float) -> None:
        """Ask the tree to end; from `grace` seconds on it is killed."""
        self._reason = reason
        self._phase, self._deadline = Phase.ENDING, monotonic() + grace
        self._is_frozen = False
        self._tree.terminate()

    # What is told

    def _record(self, started: leader.Leader) -> Facts:
        """Return the exit record of an attempt whose leader was forked."""
        code = os.waitstatus_to_exitcode(self._status or 0)
        failure = leader.read_failure(started)
        if failure is not None and failure.stage != "exec":
            return spool.unstarted("spawn", leader.explain(failure, self._command))
        if failure is not None:
            code, line = leader.explain_as_shell(failure, self._command)
            self._output.append(STDERR, line.encode("utf-8", "surrogateescape"))
        return {
            "status": "signaled" if code < 0 else "exited",
            "code": None if code < 0 else code,
            "signal": -code if code < 0 else None,
            "reason": self._reason or ("signal" if code < 0 else "exit"),
            "error": None,
            "started_at": self._started_at,
            "ended_at": clock.now(),
            "run_time": self._clock.read(),
            "output_bytes": self._output.size,
            "dropped_bytes": self._output.dropped,
        }
