"""The process above each job: its session, its output on disk, its exit status, its end.

A shim is forked by the fork server, needs neither it nor the worker afterwards, and holds its
attempt's lock exactly as long as it attends to it. Then it may be given another attempt, never two
at once. It obeys two files: the worker's permit, without which nothing
starts or runs on, and the attempt's control file. Standard library only, one thread.
"""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from time import monotonic

from relayq import clock
from relayq.host import leader, spool, tree
from relayq.host.bounds import Limits, RunClock, Wishes
from relayq.host.feed import Feed
from relayq.host.spool import Facts
from relayq.host.written import Output
from relayq.model.output import MAX_FRAME, STDERR, STDOUT

READY = b"ok"
IDLE = b"idle"

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


def main(orders: int, reports: int, boot: str) -> None:
    """Be the shim of the attempt whose directory comes through `orders`, then of the next.

    Tells through `reports` when it is READY, or what is wrong, and when it is IDLE.
    """
    wake = _detach(orders, reports)
    while raw := spool.read_line(orders):
        order = json.loads(raw)
        directory, given = order if isinstance(order, list) else (order, None)
        _attend(directory, given, reports, wake, boot)
        # Before the lock is free: who waits for that may ask for the next attempt at once.
        _tell(reports, IDLE)
        _close_all_but(orders, reports, *wake)


def _detach(orders: int, reports: int) -> tuple[int, int]:
    """Leave the fork server: its session and its descriptors; return the pipe of the signals."""
    signal.set_wakeup_fd(-1)
    # Above all its socket: while anybody holds that, the worker can't see that the server died.
    _close_all_but(orders, reports)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)
    os.setsid()
    os.umask(0o077)
    tree.adopt_orphans()
    wake = os.pipe()
    for fd in wake:
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake[1], warn_on_full_buffer=False)
    return wake


def _close_all_but(*kept: int) -> None:
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _MOST_DESCRIPTORS)


def _tell(reports: int, word: bytes) -> None:
    with suppress(OSError):  # the fork server has died, and isn't needed
        os.write(reports, word + b"\n")


def _attend(
    directory: str, given: Facts | None, reports: int, wake: tuple[int, int], boot: str
) -> None:
    """Take the attempt's lock, say so, and take the attempt to its end."""
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
        output = Output(os.path.join(directory, spool.OUTPUT), command.get("max_output"))
    except OSError as error:
        if lock is not None:
            os.close(lock)  # before it is told: a held lock would say that the attempt goes on
        _tell(reports, str(error).encode("utf-8", "replace").replace(b"\n", b" ")[:1024])
        return
    _tell(reports, READY)
    try:
        begin = partial(Attempt, directory, reserved=reserved, lock=lock, boot=boot, wake=wake[0])
        if "stage" in command or "secrets" in command:
            from relayq.host import stages  # no job without files or secrets pays for it

            record = stages.run(directory, {**command, "given": given}, output, begin)
        else:
            record = begin(command, output).run()
        _settle(directory, reserved, record)
    except BaseException:
        import traceback  # half a megabyte, hopefully for nothing

        with suppress(OSError), open(os.path.join(directory, "shim.error"), "w") as file:
            traceback.print_exc(file=file)
        raise  # the fork server ends what is left


def _settle(directory: str, reserved: int, record: Facts) -> None:
    """Write the exit record, patiently: without it a success would count as lost."""
    for _ in range(60):
        try:
            spool.settle(directory, reserved, record)
        except FileNotFoundError:
            return  # the directory was deleted: there is nobody to tell
        except OSError:
            clock.sleep(1.0)
        else:
            return
    spool.settle(directory, reserved, record)


class Attempt:
    """One attempt, from its permit to its exit record."""

    def __init__(
        self,
        directory: str,
        command: Facts,
        output: Output,
        *,
        reserved: int,
        lock: int,
        boot: str,
        wake: int,
    ) -> None:
        self._directory = directory
        self._command = command
        self._output = output
        self._reserved = reserved
        self._lock = lock
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
        self._failure: leader.Failure | None = None
        self._limits = Limits(os.path.basename(directory), command.get("limits"))
        self._is_synced = False
        self._wake = wake
        self._channels: dict[int, int] = {}  # the leader's open outputs
        self._waits_for_room = False
        self._events = select.poll()
        self._events.register(wake, select.POLLIN)

    def run(self) -> Facts:
        """Take the attempt to its end and return its exit record."""
        self._look()
        while True:
            self._advance()
            if self._phase is Phase.OVER:
                break
            self._poll()
        if self._feed is not None:
            self._feed.close()
        self._drain()
        return self._record(self._limits.settle())

    # What happened

    def _poll(self) -> None:
        """Sleep until something happens or is due, then take it in."""
        for fd, _ in self._events.poll(int(self._patience() * 1000) + 1):
            if fd == self._wake:
                numbers = os.read(fd, 4096)
                if signal.SIGCHLD in numbers:
                    self._reap()
                if signal.SIGUSR1 in numbers:
                    self._look()
            elif fd in self._channels:
                self._read(fd)
            else:
                self._pump()
        if monotonic() >= self._next_look or self._is_out_of_permit():
            self._look()

    def _patience(self) -> float:
        """Return the seconds until something is due."""
        now = monotonic()
        due = [self._next_look - now]
        if self._is_frozen:
            return max(0.0, *due)  # everything else stands still
        if self._phase is Phase.RUNNING:
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
        if os.fstat(self._lock).st_nlink == 0:
            # Somebody deleted the directory: nobody can say anything here again.
            self._wishes.kill = self._wishes.kill or "deleted"
        self._next_look = monotonic() + float(self._command["check"])
        if not tree.IS_LINUX:
            self._next_look = min(self._next_look, monotonic() + _WATCH)
            if self._leader is not None:
                self._tree.members()
        if self._is_frozen:
            self._tree.freeze()  # somebody else's SIGCONT gives no permit
        self._pump()
        if self._leader is not None and not self._is_synced:
            # Not for a short job, whose record is synced right after.
            self._is_synced = True
            with suppress(OSError):
                os.fsync(self._reserved)
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
        # A full pipe wakes the loop when there is room; else the worker's signal or the next look.
        waits, fd = feed.pump(), feed.fd
        if waits and not self._waits_for_room:
            self._events.register(fd, select.POLLOUT)
        elif self._waits_for_room and not waits:
            self._events.unregister(fd)
        self._waits_for_room = waits

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

    def _read(self, fd: int) -> bool:
        """Take one piece of output; False when there is none now."""
        try:
            data = os.read(fd, MAX_FRAME)
        except BlockingIOError:
            return False
        except OSError:  # a terminal that its last program has left
            data = b""
        if data:
            self._output.append(self._channels[fd], data)
        else:
            self._events.unregister(fd)
            del self._channels[fd]
            os.close(fd)
        return bool(data)

    def _drain(self) -> None:
        """Take what the ended processes left in the pipes.

        Bounded: somebody outside the tree may have opened one and may write to it for ever.
        """
        for fd in list(self._channels):
            for _ in range(1024):
                if not self._read(fd):
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
                if self._leader is None:
                    self._reason = "host"
                else:  # its input can't be read
                    self._end("spawn", 0.0)

    def _start(self) -> None:
        self._started_at = clock.now()
        started = leader.start(self._command, self._limits.place())
        if isinstance(started, leader.Failure):
            self._failure, self._phase = started, Phase.OVER
            return
        self._leader = started
        self._tree.group = started.pid
        self._is_childless = False
        self._phase = Phase.RUNNING
        self._clock.start()
        for fd, channel in ((started.stdout, STDOUT), (started.stderr, STDERR)):
            if fd is not None:
                os.set_blocking(fd, False)
                self._events.register(fd, select.POLLIN)
                self._channels[fd] = channel
        if started.stdin is not None:
            self._feed = Feed(self._directory, started.stdin)
            self._pump()
        shown = tree.process(started.pid)
        facts = {
            "shim": os.getpid(),
            "leader": started.pid,
            "leader_started": shown.started if shown else None,
            "pgid": started.pid,
            "boot": self._boot,
            "started_at": self._started_at,
        }
        with suppress(OSError):  # a full disk: without it a sweep has only the environment
            spool.write_new(os.path.join(self._directory, spool.RUN), facts)

    def _supervise(self) -> None:
        """See to a running leader: its end, its owner's wish, its time limit, its permit."""
        timeout = self._command["timeout"]
        if self._status is not None:
            self._phase = Phase.LINGERING
            self._let_linger()
        elif self._wishes.kill is not None:
            self._end(self._wishes.kill, self._grace())
        elif timeout is not None and self._clock.read() >= timeout:
            self._end("timeout", float(self._command["grace"]))
        elif self._output.is_over:
            self._end("output", float(self._command["grace"]))
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
            else:
                self._let_linger()
            self._tree.thaw()

    def _let_linger(self) -> None:
        self._deadline = monotonic() + float(self._command["linger"])

    def _finish_off(self) -> None:
        """Wait for what is left of the tree; end it when its time is over."""
        now = monotonic()
        if self._tree.is_empty(childless=self._is_childless):
            self._phase = Phase.OVER
        elif self._phase is Phase.LINGERING:
            # A process substitution (`> >(gzip > file)`) may hold no pipe of ours and still
            # have work to do, so the end of the pipes doesn't cut this short.
            is_late = now >= self._deadline and not self._is_frozen
            if is_late or self._wishes.kill is not None:
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

    def _record(self, held: Facts) -> Facts:
        """Return the exit record of an attempt that is over; `held` is what its limits did."""
        failure = self._failure
        if self._leader is not None:
            failure = leader.read_failure(self._leader)
        elif failure is None:
            return spool.unstarted(self._reason or "spawn", self._error)
        code = os.waitstatus_to_exitcode(self._status or 0)
        if failure is not None and (failure.is_hosts or failure.stage != "exec"):
            reason = "host" if failure.is_hosts else "spawn"
            return spool.unstarted(reason, leader.explain(failure, self._command))
        if failure is not None:
            code, line = leader.explain_as_shell(failure, self._command)
            self._output.append(STDERR, line.encode("utf-8", "surrogateescape"))
        return {
            "status": "signaled" if code < 0 else "exited",
            "code": None if code < 0 else code,
            "signal": -code if code < 0 else None,
            "reason": self._reason or self._own_reason(code, held),
            "error": self._error,
            "started_at": self._started_at,
            "ended_at": clock.now(),
            "run_time": self._clock.read(),
            "output_bytes": self._output.size,
            "dropped_bytes": self._output.dropped,
            **held,
        }

    def _own_reason(self, code: int, held: Facts) -> str:
        """Say why an attempt ended that nobody was ending."""
        if self._output.is_over:
            return "output"
        if code != 0 and held.get("oom"):
            return "oom"
        return "signal" if code < 0 else "exit"
