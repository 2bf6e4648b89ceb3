"""The fork server, which makes the shims."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from relayq.host.process import (
    Shim,
    SpawnFailed,
    SpoolLock,
    SpoolTaken,
)
from tests.system.shims.bench import ended
from tests.waiting import until

pytestmark = pytest.mark.system


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
