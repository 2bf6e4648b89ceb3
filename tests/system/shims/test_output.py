"""What a job is given by its shim, and what is kept of it."""

from __future__ import annotations

import hashlib
import os
import signal

import pytest

from relayq.host.process import (
    ForkServer,
    Shim,
)
from tests.system.shims.bench import ended, python
from tests.waiting import until

pytestmark = pytest.mark.system


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
