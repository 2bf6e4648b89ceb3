"""Shims and their fork server: real processes, killed in every way there is."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from relayq import clock
from relayq.host import process
from relayq.host.process import (
    ExitRecord,
    ForkServer,
    Permit,
    Shim,
    SpawnFailed,
    SpoolLock,
    SpoolTaken,
    make_attempt_directory,
)
from relayq.model import output
from tests.waiting import until

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]

# Every process of the tree of FAULTS: the leader, one that ignores SIGTERM, one in a session of
# its own, a daemon, and a daemon without environment. All of them show the mark as an argument.
TREE = """
import os, signal, sys
mark = sys.argv[1]
def start(prepare, environment=os.environ):
    if os.fork() == 0:
        prepare()
        os.execve("/bin/sleep", ["sleep", mark], environment)
def daemonise():
    os.setsid()
    if os.fork():
        os._exit(0)
start(lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
start(os.setsid)
start(daemonise)
start(daemonise, {})
signal.pause()
"""

CROWD = """
import os, signal, sys
for n in range(int(sys.argv[2])):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if n % 3 == 0:
            os.setsid()
        if n % 2 == 0 and os.fork():
            os._exit(0)
        os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
signal.pause()
"""

# Each process lives for 20 ms, in a session of its own; all end with the test's directory.
HOPPER = """
import os, sys, time
n = 0
while os.path.exists(sys.argv[1]):
    n += 1
    with open(sys.argv[2], "w") as file:
        file.write(str(n))
    if os.fork():
        time.sleep(0.02)
        os._exit(0)
    os.setsid()
"""

COUNTER = """
import sys, time
n = 0
while True:
    n += 1
    with open(sys.argv[1], "w") as file:
        file.write(str(n))
    time.sleep(0.001)
"""


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *map(str, arguments)]


class Bench:
    """A spool with a permit, a fork server, and marks by which processes are found again."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.forks = ForkServer()
        self.permit = Permit(spool / "permit")
        self.permit.extend_to(clock.boottime() + 3600)
        self.count = 0
        self.marks: list[str] = []

    def mark(self) -> str:
        """Return a duration for sleep(1) that no other process of this machine has."""
        mark = str(10**6 + int.from_bytes(os.urandom(6), "big"))
        self.marks.append(mark)
        return mark

    def prepare(self, *argv: str, **changes: Any) -> Path:
        self.count += 1
        job = f"JOB{os.getpid()}X{self.count}"
        tags = {"RELAYQ_JOB_ID": job, "RELAYQ_ATTEMPT": "1", "PATH": os.environ["PATH"]}
        command = {
            "argv": list(argv),
            "env": {**tags, **changes.pop("env", {})},
            "cwd": str(self.spool),
            "stdin": None,
            "timeout": None,
            "grace": 0.5,
            "linger": 0.5,
            "permit": str(self.spool / "permit"),
            "check": 0.1,
            "umask": 0o022,
            "job": job,
        }
        spool = changes.pop("spool", self.spool)
        return make_attempt_directory(spool, f"{job}.1.u", {**command, **changes})

    def start(self, *argv: str, **changes: Any) -> Shim:
        directory = self.prepare(*argv, **changes)
        self.forks.spawn(directory)
        return Shim(directory)

    def start_running(self, *argv: str, **changes: Any) -> Shim:
        shim = self.start(*argv, **changes)
        until(shim.run_facts, what="the leader to start")
        return shim

    def run(self, *argv: str, **changes: Any) -> tuple[ExitRecord, bytes, bytes]:
        return ended(self.start(*argv, **changes))

    def withdraw_permit(self) -> None:
        (self.spool / "permit").unlink()

    def clean_up(self) -> None:
        for directory in process.attempts(self.spool):
            shim = Shim(directory)
            shim.kill("clean-up", 0)
            shim.wait(10)
        self.forks.close()
        for mark in self.marks:
            for pid in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Return the living processes that have the mark as an argument."""
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        if mark in (one.info["cmdline"] or ()) and one.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(one.pid)
    return found


def frames(shim: Shim) -> list[output.Frame]:
    found, used = output.split((shim.directory / "output").read_bytes())
    assert used == (shim.directory / "output").stat().st_size
    return found


def ended(shim: Shim, within: float = 20) -> tuple[ExitRecord, bytes, bytes]:
    """Return the exit record, stdout and stderr of an attempt that comes to its end."""
    assert shim.wait(within)
    record = shim.exit_record()
    assert record is not None
    written = frames(shim)
    return record, output.only(written, output.STDOUT), output.only(written, output.STDERR)


def is_stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def number_in(path: Path) -> int:
    with suppress(FileNotFoundError, ValueError):
        return int(path.read_text())
    return 0


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="rq-", ignore_cleanup_errors=True) as directory:
        made = Bench(Path(directory))
        made.forks.start()
        yield made
        made.clean_up()


# What a job is given and what is kept of it


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_the_jobs_own(bench, code):
    record, _, _ = bench.run("sh", "-c", f"exit {code}")

    assert (record.status, record.code, record.reason) == ("exited", code, "exit")
    assert record.signal is None
    assert record.started_at <= record.ended_at


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_job_that_dies_of_a_signal_says_which(bench, number):
    record, _, _ = bench.run("sh", "-c", f"kill -{int(number)} $$")

    assert (record.status, record.signal, record.reason) == ("signaled", int(number), "signal")
    assert record.code is None


def test_output_is_kept_byte_for_byte_and_stderr_told_apart(bench):
    script = "import os; os.write(1, bytes(range(256)) * 500); os.write(2, b'\\xff\\0 err')"
    record, out, err = bench.run(*python(script))

    assert out == bytes(range(256)) * 500
    assert err == b"\xff\0 err"
    assert record.output_bytes > len(out) + len(err)
    assert record.dropped_bytes == 0


def test_a_line_of_50_mb_survives(bench):
    script = "import sys\nfor n in range(50): sys.stdout.write(chr(97 + n % 26) * 10**6)"
    _, out, _ = bench.run(*python(script))

    expected = hashlib.sha256()
    for n in range(50):
        expected.update(bytes([97 + n % 26]) * 10**6)
    assert len(out) == 50 * 10**6
    assert hashlib.sha256(out).digest() == expected.digest()


def test_output_can_be_read_while_the_job_runs(bench):
    shim = bench.start("sh", "-c", "echo first; exec sleep 60")

    until(lambda: b"first\n" in (shim.directory / "output").read_bytes(), what="the first line")
    assert shim.is_alive()


def test_writing_to_dev_stdout_keeps_what_was_written_before(bench):
    _, out, _ = bench.run("sh", "-c", "echo a; echo b > /dev/stdout; echo c")

    assert out == b"a\nb\nc\n"


def test_a_job_reads_its_stdin_file_or_nothing(bench):
    (bench.spool / "in").write_bytes(b"\0 given")

    _, out, _ = bench.run("cat", stdin=str(bench.spool / "in"))
    _, nothing, _ = bench.run("cat")

    assert out == b"\0 given"
    assert nothing == b""


def test_a_job_gets_its_own_path_environment_umask_and_directory(bench):
    programs = bench.spool / "bin"
    programs.mkdir()
    (programs / "greet").write_text('#!/bin/sh\necho "$WORD $(umask) $(pwd) $#"\n')
    (programs / "greet").chmod(0o755)

    environment = {"PATH": f"bin:{os.environ['PATH']}", "WORD": "h\udcffi"}
    _, out, _ = bench.run("greet", "a b", env=environment, umask=0o027)

    assert out == b"h\xffi 0027 %s 1\n" % os.fsencode(bench.spool.resolve())


def test_a_job_inherits_no_ignored_signal_and_no_descriptor(bench):
    # A worker started with `&` ignores SIGINT, and some programs are started with SIGCHLD ignored.
    changed = {number: signal.signal(number, signal.SIG_IGN) for number in (2, 17, 13)}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        forks = ForkServer()
        forks.start()
        directory = bench.prepare(
            "sh", "-c", "grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/$$/fd"
        )
        forks.spawn(directory)
        record, out, _ = ended(Shim(directory))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        for number, before in changed.items():
            signal.signal(number, before)
        forks.close()

    assert record.code == 0
    _, blocked, _, ignored, *descriptors = out.decode().split()
    # glibc's posix_spawn has its children ignore 32 and 33, which its threads use among themselves.
    of_threads = 1 << 31 | 1 << 32
    assert (int(blocked, 16), int(ignored, 16) & ~of_threads) == (0, 0)
    assert descriptors == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("argv", "code", "line"),
    [
        (["no-such-command"], 127, "relayq: no-such-command: command not found\n"),
        (["./missing"], 127, "relayq: ./missing: no such file or directory\n"),
        (["./plain"], 126, "relayq: ./plain: permission denied\n"),
        (["/"], 126, "relayq: /: permission denied\n"),
        (["./noformat"], 126, "relayq: ./noformat: exec format error\n"),
    ],
)
def test_a_command_that_cannot_be_executed_fails_as_in_a_shell(bench, argv, code, line):
    (bench.spool / "plain").write_text("text")
    (bench.spool / "noformat").write_text("text")
    (bench.spool / "noformat").chmod(0o755)

    record, out, err = bench.run(*argv)

    assert (record.status, record.code, record.reason) == ("exited", code, "exit")
    assert (out, err.decode()) == (b"", line)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"cwd": "/no/such/place"}, "no such directory: /no/such/place"),
        ({"cwd": "/etc/passwd"}, "not a directory: /etc/passwd"),
        ({"stdin": "/no/such/input"}, "no such file: /no/such/input"),
        ({"cwd": "/" + "x" * 3000}, None),
    ],
)
def test_a_job_that_lacks_its_directory_or_stdin_is_never_started(bench, changes, error):
    record, out, err = bench.run("true", **changes)

    assert (record.status, record.code, record.reason) == ("unstarted", None, "spawn")
    assert record.error == error or error is None and record.error.endswith("...")
    assert (out, err) == (b"", b"")


# The end of a tree


def test_a_cancel_leaves_nothing_of_a_tree_that_tries_everything(bench):
    mark = bench.mark()
    shim = bench.start(*python(TREE, mark))
    until(lambda: len(marked(mark)) == 5, what="the tree of five")
    asked = monotonic()

    shim.kill("cancel", 0.5)

    record, _, _ = ended(shim)
    assert monotonic() - asked < 0.5 + 2
    assert marked(mark) == []
    assert (record.status, record.signal, record.reason) == ("signaled", signal.SIGTERM, "cancel")


def test_a_cancel_ends_400_processes_within_its_grace_and_two_seconds(bench):
    mark = bench.mark()
    shim = bench.start(*python(CROWD, mark, 400))
    until(lambda: len(marked(mark)) == 401, within=20, what="the crowd")
    asked = monotonic()

    shim.kill("cancel", 0.3)

    record, _, _ = ended(shim)
    assert monotonic() - asked < 0.3 + 2
    assert marked(mark) == []
    assert record.reason == "cancel"


def test_a_process_that_hops_from_fork_to_fork_is_ended(bench):
    counter = bench.spool / "counter"
    shim = bench.start(*python(HOPPER, bench.spool, counter), linger=60.0)
    until(lambda: number_in(counter) > 10, what="ten hops")

    shim.kill("cancel", 0.1)

    assert shim.wait(5)
    counter.unlink()
    bench.run("sleep", "0.2")
    assert not counter.exists()


def test_a_cancel_does_not_wait_for_its_grace_when_all_is_gone(bench):
    shim = bench.start(
        "sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    )
    until(lambda: frames(shim), what="the trap")
    asked = monotonic()

    shim.kill("cancel", 30)

    record, out, _ = ended(shim)
    assert monotonic() - asked < 5
    assert (record.status, record.code, record.reason) == ("exited", 3, "cancel")
    assert out == b"up\nbye\n"


def test_sigterm_reaches_each_process_once(bench):
    script = (
        "import os, signal, sys, time\n"
        "def count(*_): os.write(1, b'TERM\\n')\n"
        "signal.signal(signal.SIGTERM, count)\n"
        "if os.fork() == 0: os.setsid()\n"
        "os.write(1, b'up\\n')\n"
        "while True: time.sleep(60)\n"
    )
    shim = bench.start(*python(script))
    until(lambda: ended_lines(shim) == [b"up", b"up"], what="both processes")

    shim.kill("cancel", 0.5)

    _, out, _ = ended(shim)
    assert out.count(b"TERM") == 2


def ended_lines(shim: Shim) -> list[bytes]:
    return output.only(output.split((shim.directory / "output").read_bytes())[0], 1).split()


def test_a_second_cancel_may_shorten_the_grace(bench):
    shim = bench.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done")
    until(lambda: frames(shim), what="the trap")

    shim.kill("cancel", 60)
    shim.kill("cancel", 0)

    assert ended(shim, within=5)[0].signal == signal.SIGKILL


def test_a_time_limit_ends_the_job(bench):
    record, out, _ = bench.run(
        "sh", "-c", "trap 'echo late; exit 0' TERM; sleep 60 & wait", timeout=0.3
    )

    assert (record.reason, record.code, out) == ("timeout", 0, b"late\n")
    assert 0.3 <= record.run_time < 3


def test_what_a_leader_leaves_may_finish_its_output(bench):
    record, out, _ = bench.run(
        "bash", "-c", "echo told > >(sleep 0.2; cat; sleep 0.2; echo end)", linger=10.0
    )

    assert out == b"told\nend\n"
    assert record.code == 0
    assert record.ended_at - record.started_at < 5


def test_what_a_leader_leaves_is_ended_when_it_lingers(bench):
    mark = bench.mark()
    script = f"(trap '' TERM; exec sleep {mark}) & setsid sleep {mark} >/dev/null 2>&1 & exit 4"
    record, _, _ = bench.run("bash", "-c", script, linger=0.2)

    assert marked(mark) == []
    assert (record.status, record.code, record.reason) == ("exited", 4, "exit")


def test_a_cancel_cuts_the_lingering_short_and_leaves_the_result(bench):
    mark = bench.mark()
    shim = bench.start_running("bash", "-c", f"sleep {mark} & exit 5", linger=60.0)
    leader = shim.run_facts().leader
    until(lambda: not psutil.pid_exists(leader), what="the leader to end")

    shim.kill("cancel", 0.2)

    record, _, _ = ended(shim, within=5)
    assert (record.code, record.reason) == (5, "exit")
    assert marked(mark) == []


def test_ending_a_session_does_not_take_the_job_along(bench):
    shim = bench.start_running("sh", "-c", "sleep 0.5; exit 6")
    pid = shim.run_facts().shim

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(pid, number)

    assert ended(shim)[0].code == 6


# The permit


def test_a_permit_is_extended_or_ended_early_as_it_is_told(tmp_path):
    permit = Permit(tmp_path / "permit")

    permit.extend_to(100.0)
    permit.extend_to(50.0)
    assert permit.deadline() == 100.0

    permit.end_by(200.0)
    assert permit.deadline() == 100.0
    permit.end_by(60.0)
    assert permit.deadline() == 60.0


def test_without_a_permit_a_job_is_not_started(bench):
    bench.withdraw_permit()
    shim = bench.start("true")

    assert not shim.wait(0.4)
    assert shim.run_facts() is None
    bench.permit.extend_to(clock.boottime() + 60)

    assert ended(shim)[0].code == 0


def test_a_permit_of_another_boot_or_of_the_past_is_none(bench):
    bench.withdraw_permit()
    permit = bench.spool / "permit"
    permit.write_text('{"boot": "another", "deadline": 1e12}')
    shim = bench.start("true")
    assert not shim.wait(0.3)
    passed = {"boot": clock.boot_id(), "deadline": clock.boottime() - 1}
    permit.write_text(json.dumps(passed))

    assert not shim.wait(0.3)
    assert shim.run_facts() is None


def test_a_kill_before_the_start_leaves_the_job_unstarted(bench):
    bench.withdraw_permit()
    shim = bench.start("true")

    shim.kill("cancel", 10)

    record, _, _ = ended(shim)
    assert (record.status, record.reason, record.code) == ("unstarted", "cancel", None)
    assert shim.run_facts() is None


def test_a_kill_before_the_fork_of_the_shim_counts_as_well(bench):
    directory = bench.prepare("true")
    Shim(directory).kill("cancel", 10)

    bench.forks.spawn(directory)

    assert ended(Shim(directory))[0].reason == "cancel"


def test_a_job_is_frozen_while_there_is_no_permit_and_its_limit_stands_still(bench):
    counter = bench.spool / "counter"
    shim = bench.start_running(*python(COUNTER, counter), timeout=1.5)
    until(lambda: number_in(counter) > 5, what="the job to count")
    leader = shim.run_facts().leader

    bench.withdraw_permit()
    until(lambda: is_stopped(leader), what="the freeze")
    before = number_in(counter)
    assert not shim.wait(2.0)
    assert number_in(counter) == before
    bench.permit.extend_to(clock.boottime() + 60)
    until(lambda: number_in(counter) > before, what="the thaw")

    record, _, _ = ended(shim)
    assert record.reason == "timeout"
    assert 1.5 <= record.run_time < 1.9
    assert record.ended_at - record.started_at > 3.4


def test_a_permit_that_runs_out_freezes_at_once(bench):
    bench.withdraw_permit()
    deadline = clock.boottime() + 0.7
    bench.permit.extend_to(deadline)
    shim = bench.start_running("sleep", "60", check=30.0)
    leader = shim.run_facts().leader

    until(lambda: is_stopped(leader), what="the freeze")

    assert abs(clock.boottime() - deadline) < 0.3


def test_a_whole_tree_is_frozen_and_killed_frozen(bench):
    mark = bench.mark()
    shim = bench.start(*python(TREE, mark))
    until(lambda: len(marked(mark)) == 5, what="the tree of five")

    bench.withdraw_permit()
    until(lambda: all(map(is_stopped, marked(mark))), what="the freeze of all")
    shim.kill("cancel", 0.3)

    assert ended(shim)[0].reason == "cancel"
    assert marked(mark) == []


def test_a_person_may_freeze_a_job_and_thaw_it(bench):
    counter = bench.spool / "counter"
    shim = bench.start_running(*python(COUNTER, counter))
    until(lambda: number_in(counter) > 5, what="the job to count")
    leader = shim.run_facts().leader

    shim.freeze()
    until(lambda: is_stopped(leader), what="the freeze")
    os.kill(leader, signal.SIGCONT)
    until(lambda: is_stopped(leader), what="the freeze to be kept up")
    shim.thaw()
    until(lambda: not is_stopped(leader), what="the thaw")
    shim.kill("cancel", 0.2)
    shim.freeze()

    assert ended(shim)[0].reason == "cancel"


def test_what_a_leader_leaves_has_its_time_after_a_freeze_as_well(bench):
    script = "sleep 0.3; { sleep 0.6; sleep 0.6; echo end; } & exit 5"
    shim = bench.start_running("bash", "-c", script, linger=2.0)
    leader = shim.run_facts().leader
    until(lambda: not os.path.exists(f"/proc/{leader}"), what="the leader's end")

    shim.freeze()
    end = clock.boottime() + 3.0
    until(lambda: clock.boottime() > end, what="more than its time to pass")
    assert shim.is_alive()
    shim.thaw()

    record, out, _ = ended(shim)
    assert (record.code, out) == (5, b"end\n")


def test_a_permit_is_never_shortened(bench):
    before = bench.permit.deadline()

    bench.permit.extend_to(before - 100)

    assert bench.permit.deadline() == before
    assert Permit(bench.spool / "none").deadline() is None


# Who may die


def test_a_shim_outlives_the_fork_server_and_a_new_one_serves(bench):
    shim = bench.start_running("sh", "-c", "sleep 0.7; echo end; exit 9")
    first = bench.forks.pid

    os.kill(first, signal.SIGKILL)
    other, out, _ = bench.run("echo", "new")
    record, old_out, _ = ended(shim)

    assert (record.code, old_out) == (9, b"end\n")
    assert (other.code, out) == (0, b"new\n")
    assert bench.forks.pid != first


def test_a_job_outlives_its_worker_and_is_adopted(bench):
    directory = bench.prepare("sh", "-c", "sleep 0.7; echo end; exit 8")
    script = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from relayq.host.process import ForkServer\n"
        f"forks = ForkServer(); forks.start(); forks.spawn(Path({str(directory)!r}))\n"
        "print(forks.pid, flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    forks = psutil.Process(int(worker.stdout.readline()))

    worker.kill()
    worker.wait()
    worker.stdout.close()
    until(lambda: not forks.is_running() or forks.status() == psutil.STATUS_ZOMBIE, what="its end")
    record, out, _ = ended(Shim(directory))

    assert (record.code, out) == (8, b"end\n")


def test_the_fork_server_ends_what_a_killed_shim_leaves(bench):
    mark = bench.mark()
    shim = bench.start_running(*python(TREE, mark))
    until(lambda: len(marked(mark)) == 5, what="the tree of five")
    other = bench.start_running("sh", "-c", "sleep 1; exit 2")

    os.kill(shim.run_facts().shim, signal.SIGKILL)

    assert shim.wait(5)
    until(lambda: not marked(mark), what="the end of the tree")
    assert shim.exit_record() is None
    assert ended(other)[0].code == 2


def test_a_sweep_ends_what_is_left_when_shim_and_fork_server_died(bench):
    mark = bench.mark()
    shim = bench.start_running(*python(TREE.replace("start(daemonise, {})", ""), mark))
    until(lambda: len(marked(mark)) == 4, what="the tree of four")

    os.kill(bench.forks.pid, signal.SIGKILL)
    os.kill(shim.run_facts().shim, signal.SIGKILL)
    assert shim.wait(5)
    process.sweep(shim.directory)

    assert marked(mark) == []
    assert shim.exit_record() is None


def test_a_program_in_a_terminal_dies_with_its_shim(bench):
    mark = bench.mark()
    directory = bench.prepare("sleep", mark, tty=True)
    (directory / "stdin").touch()
    bench.forks.spawn(directory)
    shim = Shim(directory)
    until(shim.run_facts, what="the leader to start")
    leader = shim.run_facts().leader

    os.kill(bench.forks.pid, signal.SIGKILL)
    os.kill(shim.run_facts().shim, signal.SIGKILL)

    until(lambda: leader not in marked(mark), what="the leader to die with its shim")


def test_a_sweep_leaves_a_living_shim_alone(bench):
    shim = bench.start_running("sh", "-c", "sleep 0.5; exit 3")

    process.sweep(shim.directory)

    assert ended(shim)[0].code == 3


def test_after_a_sweep_a_late_shim_starts_nothing(bench):
    directory = bench.prepare("true")

    process.sweep(directory)

    with pytest.raises(SpawnFailed):
        bench.forks.spawn(directory)
    assert not (directory / "run.json").exists()


def test_a_shim_lives_exactly_while_it_holds_its_lock(bench):
    shim = bench.start_running("sleep", "60")
    pid = shim.run_facts().shim
    assert shim.is_alive()
    assert not shim.wait(0.05)

    os.kill(bench.forks.pid, signal.SIGSTOP)  # so that nobody reaps
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, what="the zombie")

        assert shim.wait(1)
        assert not shim.is_alive()
        assert shim.ended.is_set()
    finally:
        os.kill(bench.forks.pid, signal.SIGCONT)


def test_looking_at_a_starting_shim_does_not_stop_it(bench):
    directories = [bench.prepare("true") for _ in range(30)]
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for directory in directories:
                Shim(directory).is_alive()

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for directory in directories:
            bench.forks.spawn(directory)
            assert ended(Shim(directory))[0].code == 0
    finally:
        done.set()
        watcher.join()


# The fork server


def test_a_shim_takes_the_next_attempt_and_ends_when_there_is_none(bench):
    first, second = bench.start("true"), None
    ended(first)
    pid = first.run_facts().shim
    server = psutil.Process(bench.forks.pid)

    second = bench.start("sh", "-c", "umask; pwd; ls /proc/$$/fd; exit 3", cwd="/etc")
    record, out, _ = ended(second)

    assert second.run_facts().shim == pid
    assert (record.code, out) == (3, b"0022\n/etc\n0\n1\n2\n")
    assert not first.is_alive()
    until(lambda: server.children() == [], what="the end of the idle shim")


def test_what_an_attempt_was_told_is_not_told_to_the_next(bench):
    first = bench.start_running("sleep", "60", timeout=30.0)
    first.kill("cancel", 0.2)
    assert ended(first)[0].reason == "cancel"

    record, out, _ = bench.run("sh", "-c", "echo on; exit 4")

    assert (record.reason, record.code, out) == ("exit", 4, b"on\n")
    assert record.dropped_bytes == 0


def test_an_idle_shim_that_was_killed_costs_no_attempt(bench):
    first = bench.start("true")
    ended(first)
    os.kill(first.run_facts().shim, signal.SIGKILL)

    record, _, _ = bench.run("sh", "-c", "exit 5")

    assert record.code == 5


def test_an_idle_shim_ends_with_its_fork_server(bench):
    first = bench.start("true")
    ended(first)
    idle = psutil.Process(first.run_facts().shim)

    os.kill(bench.forks.pid, signal.SIGKILL)

    until(lambda: not idle.is_running() or idle.status() == psutil.STATUS_ZOMBIE, what="its end")


def test_a_shim_keeps_no_descriptor_of_an_attempt(bench):
    ended(bench.start("true"))
    shim = bench.start_running("sleep", "60")
    pid = psutil.Process(shim.run_facts().shim)
    before = pid.num_fds()
    shim.kill("cancel", 0.2)
    ended(shim)

    for _ in range(20):
        bench.run("no-such-command")
        bench.run("true", cwd="/no/such/place")
        record, _, _ = bench.run("sleep", "60", tty=True)
        assert (record.reason, record.error) == (
            "spawn",
            "can't start a process: no such file or directory",
        )
    again = bench.start_running("sleep", "60")

    assert again.run_facts().shim == pid.pid
    assert pid.num_fds() == before


def test_many_threads_spawn_at_once(bench):
    directories = [bench.prepare("sh", "-c", f"exit {n % 7}") for n in range(80)]

    def run(directory: Path) -> int | None:
        bench.forks.spawn(directory)
        return ended(Shim(directory))[0].code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(run, directories))

    assert codes == [n % 7 for n in range(80)]


def test_the_fork_server_does_not_grow(bench):
    bench.run("true")
    server = psutil.Process(bench.forks.pid)
    memory, descriptors = server.memory_info().rss, server.num_fds()

    for _ in range(200):
        bench.run("true")

    assert server.num_fds() == descriptors
    assert server.memory_info().rss - memory < 512 * 1024
    until(lambda: server.children() == [], what="the last shim to be reaped")


def test_a_spawn_without_a_directory_fails_and_says_why(bench):
    with pytest.raises(SpawnFailed, match=r"No such file or directory"):
        bench.forks.spawn(bench.spool / "X.1.u")


def test_a_failed_spawn_leaves_a_record_and_no_later_shim(bench):
    directory = bench.prepare("true")
    (directory / "command.json").write_text("{")

    with pytest.raises(SpawnFailed, match=r"can't read command\.json"):
        bench.forks.spawn(directory)

    record = Shim(directory).exit_record()
    assert (record.status, record.reason) == ("unstarted", "host")
    assert not (directory / "run.json").exists()


def test_a_worker_that_hangs_up_ends_its_fork_server_only(bench):
    shim = bench.start_running("sh", "-c", "sleep 0.5; exit 3")
    server = psutil.Process(bench.forks.pid)

    bench.forks.close()

    assert not server.is_running()
    assert ended(shim)[0].code == 3
    with pytest.raises(SpawnFailed):
        bench.forks.spawn(shim.directory)


def test_a_spool_has_one_worker(bench):
    with SpoolLock(bench.spool):
        with pytest.raises(SpoolTaken, match=str(os.getpid())) as taken:
            SpoolLock(bench.spool).acquire()
        assert taken.value.pid == os.getpid()

    with SpoolLock(bench.spool):
        pass


# A full disk


@pytest.fixture
def small_disk(bench: Bench) -> Iterator[Path]:
    mount = bench.spool / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip(f"may not mount a tmpfs: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.root
def test_a_success_on_a_full_disk_stays_a_success(bench, small_disk):
    script = "import os; [os.write(1, b'x' * 65536) for _ in range(32)]"
    directory = bench.prepare(*python(script), spool=small_disk)
    bench.forks.spawn(directory)

    record, out, _ = ended(Shim(directory))

    assert (record.status, record.code) == ("exited", 0)
    assert record.dropped_bytes > 0
    assert record.dropped_bytes + len(out) == 32 * 65536
    assert record.output_bytes == (directory / "output").stat().st_size


@pytest.mark.root
def test_output_goes_on_whole_once_the_disk_has_room_again(bench, small_disk):
    ballast = small_disk / "ballast"
    script = (
        "import os, sys; os.write(1, b'x' * 300000); os.write(2, b'full');\n"
        "while os.path.exists(sys.argv[1]): pass\n"
        "os.write(1, b'end')"
    )
    directory = bench.prepare(*python(script, ballast), spool=small_disk)
    ballast.write_bytes(b"b" * 100_000)
    bench.forks.spawn(directory)
    shim = Shim(directory)
    until(lambda: (directory / "output").stat().st_size > 65536, what="some output")
    until(lambda: os.statvfs(small_disk).f_bavail <= 16, what="the disk to be full")

    ballast.unlink()

    record, out, _ = ended(shim)
    assert record.code == 0
    assert out.endswith(b"end")
    assert record.dropped_bytes > 0


@pytest.mark.root
def test_a_job_is_refused_when_not_even_its_end_could_be_written(bench, small_disk):
    directory = bench.prepare("true", spool=small_disk)
    with suppress(OSError):
        (small_disk / "ballast").write_bytes(b"b" * 10**6)

    with pytest.raises(SpawnFailed, match="No space left"):
        bench.forks.spawn(directory)
