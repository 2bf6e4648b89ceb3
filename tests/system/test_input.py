"""Standard input that comes while a job runs."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

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


def relayq(fleet, *arguments, **options):
    """Run the real command, its standard streams as given."""
    return subprocess.Popen(
        [sys.executable, "-m", "relayq", *arguments],
        env=fleet.environ | {"RELAYQ_BROKER__URL": fleet.broker.url},
        **options,
    )


def test_what_is_piped_into_run_is_the_jobs_input(shared_fleet):
    run = relayq(shared_fleet, "run", "sha256sum", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    out, _ = run.communicate(LARGE, timeout=60)

    assert out.split()[0].decode() == hashlib.sha256(LARGE).hexdigest()
    assert run.returncode == 0


def test_a_file_can_be_named_as_the_jobs_input(shared_fleet, tmp_path):
    (tmp_path / "in").write_bytes(b"from a file\n")

    run = relayq(
        shared_fleet,
        *("run", "--stdin", str(tmp_path / "in"), "cat"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )

    assert run.communicate(timeout=30)[0] == b"from a file\n"


def test_a_job_can_be_kept_from_reading_what_is_piped(shared_fleet):
    run = relayq(shared_fleet, "run", "-n", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    assert run.communicate(b"not for it", timeout=30)[0] == b""


class Screen:
    """A terminal with a command in it."""

    def __init__(self, fleet, *arguments) -> None:
        self.ours, theirs = os.openpty()
        self.command = relayq(
            fleet, *arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        os.set_blocking(self.ours, False)
        self.text = b""

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def shows(self, text: bytes) -> bool:
        with suppress(OSError):
            self.text += os.read(self.ours, 65536)
        return text in self.text


def test_a_command_on_another_host_has_this_terminal(shared_fleet):
    screen = Screen(shared_fleet, "run", "-t", "test -t 1 && echo ready; read -r x; echo got $x")

    until(lambda: screen.shows(b"ready"), within=20, what="the job's first words")
    screen.type(b"words\r")

    until(lambda: screen.shows(b"got words"), within=20, what="the answer")
    assert screen.command.wait(20) == 0


def test_a_terminal_is_left_by_its_escape_and_taken_up_again(shared_fleet):
    screen = Screen(shared_fleet, "run", "-t", "echo ready; read -r x; echo got $x; exit 4")
    until(lambda: screen.shows(b"ready"), within=20, what="the job's first words")

    screen.type(b"~.")
    until(lambda: screen.shows(b"goes on"), within=20, what="to be detached")
    assert screen.command.wait(20) == 130
    (record,) = shared_fleet.job.list(state="running")
    again = Screen(shared_fleet, "attach", record.id)
    until(lambda: again.shows(b"ready"), within=20, what="what the job wrote before")
    again.type(b"more\r")

    until(lambda: again.shows(b"got more"), within=20, what="the answer")
    assert again.command.wait(20) == 4
