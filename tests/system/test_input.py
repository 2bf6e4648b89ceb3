"""Standard input that comes while a job runs."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading

import pytest

from relayq import JobFailed
from tests.waiting import until

pytestmark = pytest.mark.system

LARGE = os.urandom(1 << 20) * 20


def reader(data: bytes):
    """Return a function that reads `data` in pieces."""
    stream = io.BytesIO(data)
    return lambda: stream.read(60_000)


def test_a_job_reads_what_it_is_fed_and_then_its_end(shared_fleet):
    result = shared_fleet.job.run("cat; echo end", feed=True)

    result.feed(reader(b"one\ntwo\n"))

    assert result.get(timeout=20) == "one\ntwo\nend"


def test_a_large_input_arrives_byte_for_byte(shared_fleet):
    result = shared_fleet.job.run("sha256sum", feed=True)

    result.feed(reader(LARGE))

    assert result.get(timeout=60).split()[0] == hashlib.sha256(LARGE).hexdigest()


def test_a_job_that_does_not_read_ends_the_feeding(shared_fleet):
    result = shared_fleet.job.run("head -c 3", feed=True)

    result.feed(reader(b"abc" + LARGE))

    assert result.get(timeout=20) == "abc"


def test_input_is_live(shared_fleet):
    result = shared_fleet.job.run("while read -r line; do echo got $line; done", feed=True)
    lines, gate = iter([b"first\n", b"second\n", b""]), threading.Event()

    def read() -> bytes:
        line = next(lines)
        if line != b"first\n":
            gate.wait(20)
        return line

    threading.Thread(target=result.feed, args=(read,), daemon=True).start()
    frames = result.logs(follow=True)

    assert next(frames).data == b"got first\n"
    gate.set()
    assert b"".join(frame.data for frame in frames) == b"got second\n"


def test_a_worker_may_be_killed_while_its_job_is_fed(fleet, tmp_path):
    result = fleet.job.run(f"touch {tmp_path}/up; sha256sum", feed=True)
    until((tmp_path / "up").exists, what="the job to run")
    stream, halfway, restarted = io.BytesIO(LARGE), threading.Event(), threading.Event()

    def read() -> bytes:
        if stream.tell() > len(LARGE) // 2:
            halfway.set()
            restarted.wait(30)
        return stream.read(60_000)

    feeding = threading.Thread(target=result.feed, args=(read,))
    feeding.start()
    assert halfway.wait(20)
    fleet.end_worker(signal.SIGKILL)
    fleet.start_worker()
    restarted.set()
    feeding.join(30)

    assert result.get(timeout=30).split()[0] == hashlib.sha256(LARGE).hexdigest()
    assert result.record.attempt == 1


def test_an_input_that_was_consumed_is_not_taken_for_a_second_attempt(shared_fleet):
    result = shared_fleet.job.run("cat >/dev/null; exit 3", feed=True)
    result.feed(reader(b"some"))
    result.wait(20)

    result.retry()

    with pytest.raises(JobFailed, match="standard input"):
        result.get(timeout=20)


def test_a_job_may_have_a_terminal_of_the_submitters_size(shared_fleet):
    result = shared_fleet.job.run("test -t 0 && test -t 2 && stty size; read -r x", tty=True)
    sizes, ends = iter([(33, 99)]), iter([b"\n"])

    threading.Thread(
        target=result.feed,
        args=(lambda: next(ends, b""),),
        kwargs={"size": lambda: next(sizes, None)},
    ).start()
    result.wait(20)

    assert result.exit_code == 0
    assert "24 80" in result.stdout or "33 99" in result.stdout


def test_a_terminals_interrupt_reaches_the_job(shared_fleet):
    command = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    result = shared_fleet.job.run(command, tty=True)
    until(lambda: "ready" in result.stdout, what="the job to be ready")
    keys = iter([b"\x03", b""])

    result.feed(lambda: next(keys))
    result.wait(20)

    assert result.exit_code == 5
    assert "interrupted" in result.stdout


def test_a_terminal_is_resized_while_the_job_runs(shared_fleet):
    result = shared_fleet.job.run("until stty size | grep '40 120'; do sleep 0.05; done", tty=True)
    keys = iter([b"x", b""])

    result.feed(lambda: next(keys), size=lambda: (40, 120))

    assert "40 120" in result.get(timeout=20)
